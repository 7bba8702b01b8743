/* Rewinds an arena to a mark from before a reset. */
#include "misuse.h"

int main(void) {
    watch(AK_FAULT_USE_AFTER_RESET, "rewind", "arena", "requests", 7, 13);
    ak_arena_opts_t opts = {.struct_size = sizeof opts, .name = "requests"};
    ak_arena_t *a = ak_arena_new(&opts);
    if (ak_arena_alloc(a, 100) == NULL) return 2;
    ak_arena_mark_t mark = ak_arena_mark(a);
    ak_arena_reset(a);
    char *kept = ak_arena_strdup(a, "kept");
    errno = 0;
    if (ak_arena_rewind(a, mark)) return 10;
    if (errno != EINVAL || strcmp(kept, "kept") != 0 || ak_arena_check(a) != 0) return 11;
    ak_arena_destroy(a);
    return finish(1);
}

/* FAULT */
/* EXPECT-ERR: allokit: rewind of 0xADDR in arena "requests": the mark is from before a reset, or an earlier rewind has ended it */
/* EXPECT-SITES: |  arena made at arena_mark_from_before_reset.c:7 */
/* EXPECT-SITES: |  rewind at arena_mark_from_before_reset.c:13 */
/* EXPECT-HANDLER: handler: use after reset */
