/* Gives an object to another pool than its own. */
#include "misuse.h"

int main(void) {
    watch(AK_FAULT_ALLOCATOR_MISMATCH, "give", "pool", "nodes", 7, 12);
    ak_pool_opts_t opts = {.struct_size = sizeof opts, .name = "nodes"};
    ak_pool_t *p = ak_pool_new(40, &opts);
    ak_pool_t *other = ak_pool_new(40, NULL);
    char *object = (char *)ak_pool_take(other);
    memset(object, 7, 40);
    if (ak_pool_take(p) == NULL) return 2;
    ak_pool_give(p, hidden(object));
    if (object[0] != 7 || object[39] != 7 || ak_pool_check(p) + ak_pool_check(other) != 0) return 10;
    ak_pool_give(other, object);
    ak_pool_destroy(other);
    ak_pool_destroy(p);
    return finish(1);
}

/* FAULT */
/* EXPECT-ERR: allokit: give of 0xADDR in pool "nodes": what is given belongs to another owner or to none */
/* EXPECT-SITES: |  pool made at pool_object_of_another.c:7 */
/* EXPECT-SITES: |  give at pool_object_of_another.c:12 */
/* EXPECT-HANDLER: handler: allocator mismatch */
