/* Gives the middle of an object to a guarded pool. */
#include "misuse.h"

int main(void) {
    watch(AK_FAULT_ALLOCATOR_MISMATCH, "give", "pool", "nodes", 7, 9);
    ak_pool_opts_t opts = {.struct_size = sizeof opts, .name = "nodes", .flags = AK_POOL_GUARD};
    ak_pool_t *p = ak_pool_new(40, &opts);
    char *object = (char *)ak_pool_take(p);
    ak_pool_give(p, hidden(object + 16));
    if (ak_pool_check(p) != 0) return 10;
    ak_pool_give(p, object);
    ak_pool_destroy(p);
    return finish(1);
}

/* FAULT */
/* EXPECT-ERR: allokit: give of 0xADDR in pool "nodes": what is given belongs to another owner or to none */
/* EXPECT-SITES: |  pool made at pool_give_interior.c:7 */
/* EXPECT-SITES: |  give at pool_give_interior.c:9 */
/* EXPECT-HANDLER: handler: allocator mismatch */
