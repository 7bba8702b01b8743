/* Frees a block of a region twice. */
#include "misuse.h"

int main(void) {
    watch(AK_FAULT_DOUBLE_FREE, "free", "region", NULL, 6, 13);
    ak_region_t *r = ak_region_new(10000);
    char *block = (char *)ak_region_alloc(r, 100);
    char *next = (char *)ak_region_alloc(r, 100);
    if (block == NULL || next == NULL) return 2;
    memset(next, 1, 100);
    ak_region_free(block);
    errno = 5;
    ak_region_free(hidden(block));
    if (errno != 5 || next[0] != 1 || next[99] != 1 || ak_region_check(r) != 0) return 10;
    ak_region_free(next);
    ak_region_destroy(r);
    return finish(1);
}

/* FAULT */
/* EXPECT-ERR: allokit: free of 0xADDR in region: double free */
/* EXPECT-SITES: |  region made at region_double_free.c:6 */
/* EXPECT-SITES: |  free at region_double_free.c:13 */
/* EXPECT-HANDLER: handler: double free */
