/* Gives a variable to a pool. */
#include "misuse.h"

static char local[64];

int main(void) {
    watch(AK_FAULT_ALLOCATOR_MISMATCH, "give", "pool", "nodes", 9, 11);
    ak_pool_opts_t opts = {.struct_size = sizeof opts, .name = "nodes"};
    ak_pool_t *p = ak_pool_new(40, &opts);
    if (ak_pool_take(p) == NULL) return 2;
    ak_pool_give(p, hidden(local));
    if (local[0] != 0 || ak_pool_check(p) != 0) return 10;
    ak_pool_destroy(p);
    return finish(1);
}

/* FAULT */
/* EXPECT-ERR: allokit: give of 0xADDR in pool "nodes": what is given belongs to another owner or to none */
/* EXPECT-SITES: |  pool made at pool_give_static.c:9 */
/* EXPECT-SITES: |  give at pool_give_static.c:11 */
/* EXPECT-HANDLER: handler: allocator mismatch */
