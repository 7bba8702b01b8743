/* Frees a block of a region whose header was overwritten by its neighbour. */
#include "misuse.h"

int main(void) {
    watch(AK_FAULT_INVALID_FREE, "free", NULL, NULL, 0, 10);
    ak_region_t *r = ak_region_new(10000);
    char *block = (char *)ak_region_alloc(r, 24), *next = (char *)ak_region_alloc(r, 24);
    ((char *)hidden(block))[34] ^= 1;
    if (ak_region_check(r) == 0) return 10;
    ak_region_free(next);
    ak_region_destroy(r);
    return finish(1);
}

/* FAULT */
/* EXPECT-ERR: allokit: free of 0xADDR: what is given belongs to another owner or to none */
/* EXPECT-SITES: |  free at region_header_overwritten.c:10 */
/* EXPECT-HANDLER: handler: invalid free */
