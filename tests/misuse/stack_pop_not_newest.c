/* Pops a block of a stack that is not the newest. */
#include "misuse.h"

int main(void) {
    watch(AK_FAULT_OUT_OF_ORDER, "pop", "stack", "frames", 7, 10);
    ak_stack_opts_t opts = {.struct_size = sizeof opts, .name = "frames"};
    ak_stack_t *s = ak_stack_new(4000, &opts);
    void *old = ak_stack_push(s, 50), *newest = ak_stack_push(s, 50);
    errno = 0;
    if (ak_stack_pop(s, old)) return 10;
    if (errno != EINVAL || ak_stack_check(s) != 0 || !ak_stack_pop(s, newest) || !ak_stack_pop(s, old)) return 11;
    ak_stack_destroy(s);
    return finish(1);
}

/* FAULT */
/* EXPECT-ERR: allokit: pop of 0xADDR in stack "frames": released out of order */
/* EXPECT-SITES: |  stack made at stack_pop_not_newest.c:7 */
/* EXPECT-SITES: |  pop at stack_pop_not_newest.c:10 */
/* EXPECT-HANDLER: handler: out of order */
