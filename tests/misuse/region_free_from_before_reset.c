/* Frees a block of a region from before its reset. */
#include "misuse.h"

int main(void) {
    watch(AK_FAULT_USE_AFTER_RESET, "free", "region", NULL, 6, 9);
    ak_region_t *r = ak_region_new(10000);
    char *first = (char *)ak_region_alloc(r, 100), *block = (char *)ak_region_alloc(r, 100);
    ak_region_reset(r);
    ak_region_free(hidden(block));
    if (first == NULL || ak_region_check(r) != 0) return 10;
    ak_region_destroy(r);
    return finish(1);
}

/* FAULT */
/* EXPECT-ERR: allokit: free of 0xADDR in region: the mark is from before a reset, or an earlier rewind has ended it */
/* EXPECT-SITES: |  region made at region_free_from_before_reset.c:6 */
/* EXPECT-SITES: |  free at region_free_from_before_reset.c:9 */
/* EXPECT-HANDLER: handler: use after reset */
