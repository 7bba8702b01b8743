/* Uses a region after the one that it lies in was reset. */
#include "misuse.h"

int main(void) {
    watch(AK_FAULT_USE_AFTER_DESTROY, "alloc", "region", NULL, 0, 0);
    ak_region_t *r = ak_region_new(20000);
    ak_region_t *child = ak_region_child(r, 5000);
    if (child == NULL || ak_region_alloc(child, 100) == NULL) return 2;
    ak_region_reset_zero(r);
    errno = 0;
    if (ak_region_alloc((ak_region_t *)hidden(child), 10) != NULL || errno != EINVAL) return 10;
    ak_region_destroy(r);
    return finish(1);
}

/* FAULT */
/* EXPECT-ERR: allokit: alloc of 0xADDR in region: it has been destroyed, or never was one */
/* EXPECT-HANDLER: handler: use after destroy */
