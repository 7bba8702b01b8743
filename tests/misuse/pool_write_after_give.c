/* Writes to an object after it was given; seen when it is taken again. */
#include "misuse.h"

int main(void) {
    watch(AK_FAULT_WRITE_AFTER_FREE, "take", "pool", "nodes", 7, 0);
    ak_pool_opts_t opts = {.struct_size = sizeof opts, .name = "nodes"};
    ak_pool_t *p = ak_pool_new(40, &opts);
    char *object = (char *)ak_pool_take(p);
    ak_pool_give(p, object);
    memset(hidden(object), 1, 40);
    if (ak_pool_check(p) == 0) return 10;
    char *next = (char *)ak_pool_take(p);
    if (next == NULL || next == object) return 11;
    ak_pool_destroy(p);
    return finish(1);
}

/* FAULT */
/* EXPECT-ERR: allokit: take of 0xADDR in pool "nodes": written after it was reset or freed */
/* EXPECT-SITES: |  pool made at pool_write_after_give.c:7 */
/* EXPECT-HANDLER: handler: write after free */
