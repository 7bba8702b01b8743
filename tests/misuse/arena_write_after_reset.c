/* Writes to a block of a guarded arena after a reset; seen when the place is handed out again. */
#include "misuse.h"

int main(void) {
    watch(AK_FAULT_WRITE_AFTER_FREE, "alloc", "arena", "guarded", 7, 0);
    ak_arena_opts_t opts = {.struct_size = sizeof opts, .name = "guarded", .flags = AK_ARENA_GUARD};
    ak_arena_t *a = ak_arena_new(&opts);
    char *block = (char *)ak_arena_alloc(a, 200);
    memset(block, 1, 200);
    ak_arena_reset(a);
    ((char *)hidden(block))[50] = 2;
    if (ak_arena_check(a) != 1) return 10;
    errno = 5;
    if (ak_arena_alloc(a, 200) != block || errno != 5) return 11; /* the block is good all the same */
    ak_arena_destroy(a);
    return finish(1);
}

/* FAULT */
/* EXPECT-ERR: allokit: alloc of 0xADDR in arena "guarded": written after it was reset or freed */
/* EXPECT-SITES: |  arena made at arena_write_after_reset.c:7 */
/* EXPECT-HANDLER: handler: write after free */
