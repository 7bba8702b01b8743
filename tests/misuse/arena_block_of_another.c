/* Resizes a block of another arena. */
#include "misuse.h"

int main(void) {
    watch(AK_FAULT_ALLOCATOR_MISMATCH, "realloc", "arena", "requests", 7, 12);
    ak_arena_opts_t opts = {.struct_size = sizeof opts, .name = "requests"};
    ak_arena_t *a = ak_arena_new(&opts);
    ak_arena_t *other = ak_arena_new(NULL);
    char *block = ak_arena_strdup(other, "theirs");
    if (ak_arena_alloc(a, 10) == NULL) return 2;
    errno = 0;
    if (ak_arena_realloc(a, block, 7, 500) != NULL) return 10;
    if (errno != EINVAL || strcmp(block, "theirs") != 0 || ak_arena_check(a) + ak_arena_check(other) != 0) return 11;
    ak_arena_destroy(other);
    ak_arena_destroy(a);
    return finish(1);
}

/* FAULT */
/* EXPECT-ERR: allokit: realloc of 0xADDR in arena "requests": what is given belongs to another owner or to none */
/* EXPECT-SITES: |  arena made at arena_block_of_another.c:7 */
/* EXPECT-SITES: |  realloc at arena_block_of_another.c:12 */
/* EXPECT-HANDLER: handler: allocator mismatch */
