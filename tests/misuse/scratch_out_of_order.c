/* Ends an outer stretch before the inner one, which ends with it. */
#include "misuse.h"

int main(void) {
    watch(AK_FAULT_OUT_OF_ORDER, "scratch end", NULL, NULL, 0, 8);
    ak_scratch_t outer = ak_scratch_begin(), inner = ak_scratch_begin();
    if (outer.arena == NULL || inner.arena == NULL) return 2;
    ak_scratch_end(outer);
    ak_scratch_t next = ak_scratch_begin();
    if (next.arena != outer.arena || ak_arena_alloc(next.arena, 100) == NULL) return 10;
    ak_scratch_end(next);
    return finish(1);
}

/* FAULT */
/* EXPECT-ERR: allokit: scratch end of 0xADDR: released out of order */
/* EXPECT-SITES: |  scratch end at scratch_out_of_order.c:8 */
/* EXPECT-HANDLER: handler: out of order */
