/* Rewinds an arena to a mark of another one. */
#include "misuse.h"

int main(void) {
    watch(AK_FAULT_ALLOCATOR_MISMATCH, "rewind", "arena", "requests", 7, 12);
    ak_arena_opts_t opts = {.struct_size = sizeof opts, .name = "requests"};
    ak_arena_t *a = ak_arena_new(&opts);
    ak_arena_t *other = ak_arena_new(NULL);
    char *kept = ak_arena_strdup(a, "kept");
    ak_arena_mark_t mark = ak_arena_mark(other);
    errno = 0;
    if (ak_arena_rewind(a, mark)) return 10;
    if (errno != EINVAL || strcmp(kept, "kept") != 0 || ak_arena_check(a) + ak_arena_check(other) != 0) return 11;
    if (!ak_arena_rewind(other, mark)) return 12;
    ak_arena_destroy(other);
    ak_arena_destroy(a);
    return finish(1);
}

/* FAULT */
/* EXPECT-ERR: allokit: rewind of 0xADDR in arena "requests": what is given belongs to another owner or to none */
/* EXPECT-SITES: |  arena made at arena_mark_of_another.c:7 */
/* EXPECT-SITES: |  rewind at arena_mark_of_another.c:12 */
/* EXPECT-HANDLER: handler: allocator mismatch */
