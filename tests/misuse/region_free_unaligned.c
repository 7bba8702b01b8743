/* Frees an address that no block of a region can have. */
#include "misuse.h"

int main(void) {
    watch(AK_FAULT_INVALID_FREE, "free", NULL, NULL, 0, 8);
    ak_region_t *r = ak_region_new(10000);
    char *block = (char *)ak_region_alloc(r, 100);
    ak_region_free(hidden(block + 3));
    if (ak_region_check(r) != 0) return 10;
    ak_region_free(block);
    ak_region_destroy(r);
    return finish(1);
}

/* FAULT */
/* EXPECT-ERR: allokit: free of 0xADDR: what is given belongs to another owner or to none */
/* EXPECT-SITES: |  free at region_free_unaligned.c:8 */
/* EXPECT-HANDLER: handler: invalid free */
