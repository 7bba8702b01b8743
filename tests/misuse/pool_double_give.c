/* Gives an object to its pool twice. */
#include "misuse.h"

int main(void) {
    watch(AK_FAULT_DOUBLE_FREE, "give", "pool", "nodes", 7, 10);
    ak_pool_opts_t opts = {.struct_size = sizeof opts, .name = "nodes"};
    ak_pool_t *p = ak_pool_new(40, &opts);
    void *object = ak_pool_take(p), *other = ak_pool_take(p);
    ak_pool_give(p, object);
    ak_pool_give(p, hidden(object));
    if (ak_pool_check(p) != 0 || ak_pool_take(p) != object || ak_pool_take(p) == object || other == NULL) return 10;
    ak_pool_destroy(p);
    return finish(1);
}

/* FAULT */
/* EXPECT-ERR: allokit: give of 0xADDR in pool "nodes": double free */
/* EXPECT-SITES: |  pool made at pool_double_give.c:7 */
/* EXPECT-SITES: |  give at pool_double_give.c:10 */
/* EXPECT-HANDLER: handler: double free */
