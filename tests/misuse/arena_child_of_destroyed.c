/* Uses a child after the end of its parent: it ended with it. Both lie in one buffer. */
#include "misuse.h"

static char memory[4000];

int main(void) {
    watch(AK_FAULT_USE_AFTER_DESTROY, "rewind", "arena", NULL, 0, 16);
    ak_arena_opts_t opts = {.struct_size = sizeof opts, .buffer = memory, .buffer_size = sizeof memory, .flags = AK_ARENA_FIXED};
    ak_arena_t *parent = ak_arena_new(&opts);
    ak_arena_opts_t small = {.struct_size = sizeof small, .first_chunk = 500};
    ak_arena_t *child = ak_arena_child(parent, &small);
    if (child == NULL || ak_arena_alloc(child, 100) == NULL) return 2;
    ak_arena_mark_t mark = ak_arena_mark(child);
    ak_arena_destroy(parent);
    errno = 0;
    if (ak_arena_rewind((ak_arena_t *)hidden(child), mark) || errno != EINVAL) return 10;
    return finish(1);
}

/* FAULT */
/* EXPECT-ERR: allokit: rewind of 0xADDR in arena: it has been destroyed, or never was one */
/* EXPECT-SITES: |  rewind at arena_child_of_destroyed.c:16 */
/* EXPECT-HANDLER: handler: use after destroy */
