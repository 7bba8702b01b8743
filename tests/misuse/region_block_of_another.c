/* Resizes a block of another region. */
#include "misuse.h"

int main(void) {
    watch(AK_FAULT_ALLOCATOR_MISMATCH, "realloc", "region", NULL, 6, 11);
    ak_region_t *r = ak_region_new(10000);
    ak_region_t *other = ak_region_new(10000);
    char *block = (char *)ak_region_alloc(other, 50);
    memset(block, 7, 50);
    errno = 0;
    if (ak_region_realloc(r, hidden(block), 500) != NULL || errno != EINVAL) return 10;
    if (block[0] != 7 || block[49] != 7 || ak_region_check(r) + ak_region_check(other) != 0) return 11;
    ak_region_free(block);
    ak_region_destroy(other);
    ak_region_destroy(r);
    return finish(1);
}

/* FAULT */
/* EXPECT-ERR: allokit: realloc of 0xADDR in region: what is given belongs to another owner or to none */
/* EXPECT-SITES: |  region made at region_block_of_another.c:6 */
/* EXPECT-SITES: |  realloc at region_block_of_another.c:11 */
/* EXPECT-HANDLER: handler: allocator mismatch */
