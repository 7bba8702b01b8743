/* Uses an arena after its end. It lay in a buffer, so what is left of it can be read. */
#include "misuse.h"

static char memory[1000];

int main(void) {
    watch(AK_FAULT_USE_AFTER_DESTROY, "alloc", "arena", NULL, 0, 0);
    ak_arena_opts_t opts = {.struct_size = sizeof opts, .buffer = memory, .buffer_size = sizeof memory};
    ak_arena_t *a = ak_arena_new(&opts);
    ak_arena_destroy(a);
    errno = 0;
    if ((ak_arena_alloc)((ak_arena_t *)hidden(a), 5000) != NULL) return 10;
    if (errno != EINVAL) return 11;
    return finish(1);
}

/* FAULT */
/* EXPECT-ERR: allokit: alloc of 0xADDR in arena: it has been destroyed, or never was one */
/* EXPECT-HANDLER: handler: use after destroy */
