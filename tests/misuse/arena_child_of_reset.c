/* Uses a child after its parent was reset: it ended. Both lie in one buffer. */
#include "misuse.h"

static char memory[4000];

int main(void) {
    watch(AK_FAULT_USE_AFTER_DESTROY, "alloc", "arena", NULL, 0, 0);
    ak_arena_opts_t opts = {.struct_size = sizeof opts, .buffer = memory, .buffer_size = sizeof memory, .flags = AK_ARENA_FIXED};
    ak_arena_t *parent = ak_arena_new(&opts);
    ak_arena_opts_t small = {.struct_size = sizeof small, .first_chunk = 500};
    ak_arena_t *child = ak_arena_child(parent, &small);
    if (child == NULL) return 2;
    ak_arena_reset(parent);
    errno = 0;
    if (ak_arena_alloc_aligned((ak_arena_t *)hidden(child), 10, 64) != NULL || errno != EINVAL) return 10;
    if (ak_arena_alloc(parent, 100) == NULL || ak_arena_check(parent) != 0) return 11;
    ak_arena_destroy(parent);
    return finish(1);
}

/* FAULT */
/* EXPECT-ERR: allokit: alloc of 0xADDR in arena: it has been destroyed, or never was one */
/* EXPECT-HANDLER: handler: use after destroy */
