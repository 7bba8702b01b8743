/* Rewinds an arena to a mark that an earlier rewind has ended, when it has grown past that place again. */
#include "misuse.h"

int main(void) {
    watch(AK_FAULT_USE_AFTER_RESET, "rewind", "arena", NULL, 6, 14);
    ak_arena_t *a = ak_arena_new(NULL);
    ak_arena_mark_t outer = ak_arena_mark(a);
    if (ak_arena_alloc(a, 100) == NULL) return 2;
    ak_arena_mark_t inner = ak_arena_mark(a);
    if (!ak_arena_rewind(a, outer)) return 10;
    char *kept = ak_arena_strdup(a, "kept");
    if (ak_arena_alloc(a, 1000) == NULL) return 2;
    errno = 0;
    if (ak_arena_rewind(a, inner)) return 11;
    if (errno != EINVAL || strcmp(kept, "kept") != 0 || ak_arena_check(a) != 0) return 12;
    ak_arena_destroy(a);
    return finish(1);
}

/* FAULT */
/* EXPECT-ERR: allokit: rewind of 0xADDR in arena: the mark is from before a reset, or an earlier rewind has ended it */
/* EXPECT-SITES: |  arena made at arena_mark_ended.c:6 */
/* EXPECT-SITES: |  rewind at arena_mark_ended.c:14 */
/* EXPECT-HANDLER: handler: use after reset */
