/* Frees the middle of a block of a region. */
#include "misuse.h"

int main(void) {
    watch(AK_FAULT_INVALID_FREE, "free", NULL, NULL, 0, 9);
    ak_region_t *r = ak_region_new(10000);
    char *block = (char *)ak_region_alloc(r, 100);
    memset(block, 0, 100);
    ak_region_free((char *)hidden(block + 32));
    if (ak_region_check(r) != 0) return 10;
    ak_region_free(block);
    ak_region_destroy(r);
    return finish(1);
}

/* FAULT */
/* EXPECT-ERR: allokit: free of 0xADDR: what is given belongs to another owner or to none */
/* EXPECT-SITES: |  free at region_free_interior.c:9 */
/* EXPECT-HANDLER: handler: invalid free */
