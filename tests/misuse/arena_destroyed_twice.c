/* Ends an arena twice. */
#include "misuse.h"

static char memory[1000];

int main(void) {
    watch(AK_FAULT_USE_AFTER_DESTROY, "destroy", "arena", NULL, 0, 11);
    ak_arena_opts_t opts = {.struct_size = sizeof opts, .buffer = memory, .buffer_size = sizeof memory};
    ak_arena_t *a = ak_arena_new(&opts);
    ak_arena_destroy(a);
    ak_arena_destroy((ak_arena_t *)hidden(a));
    return finish(1);
}

/* FAULT */
/* EXPECT-ERR: allokit: destroy of 0xADDR in arena: it has been destroyed, or never was one */
/* EXPECT-SITES: |  destroy at arena_destroyed_twice.c:11 */
/* EXPECT-HANDLER: handler: use after destroy */
