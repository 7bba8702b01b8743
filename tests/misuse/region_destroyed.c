/* Uses a region after its end; it lay in a buffer. */
#include "misuse.h"

static char memory[4000];

int main(void) {
    watch(AK_FAULT_USE_AFTER_DESTROY, "alloc", "region", NULL, 0, 0);
    ak_region_t *r = ak_region_from_buffer(memory, sizeof memory);
    ak_region_destroy(r);
    errno = 0;
    if (ak_region_alloc((ak_region_t *)hidden(r), 10) != NULL || errno != EINVAL) return 10;
    return finish(1);
}

/* FAULT */
/* EXPECT-ERR: allokit: alloc of 0xADDR in region: it has been destroyed, or never was one */
/* EXPECT-HANDLER: handler: use after destroy */
