/* Uses a pool after its end; it lay in a buffer. */
#include "misuse.h"

static char memory[4000];

int main(void) {
    watch(AK_FAULT_USE_AFTER_DESTROY, "take", "pool", NULL, 0, 0);
    ak_pool_opts_t opts = {.struct_size = sizeof opts, .buffer = memory, .buffer_size = sizeof memory};
    ak_pool_t *p = ak_pool_new(40, &opts);
    ak_pool_destroy(p);
    errno = 0;
    if (ak_pool_take((ak_pool_t *)hidden(p)) != NULL || errno != EINVAL) return 10;
    return finish(1);
}

/* FAULT */
/* EXPECT-ERR: allokit: take of 0xADDR in pool: it has been destroyed, or never was one */
/* EXPECT-HANDLER: handler: use after destroy */
