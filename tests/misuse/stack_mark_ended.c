/* Releases a stack to a mark that ended with an older one. */
#include "misuse.h"

int main(void) {
    watch(AK_FAULT_OUT_OF_ORDER, "release", "stack", "frames", 7, 12);
    ak_stack_opts_t opts = {.struct_size = sizeof opts, .name = "frames"};
    ak_stack_t *s = ak_stack_new(4000, &opts);
    void *first = ak_stack_push(s, 50);
    ak_stack_mark_t outer = ak_stack_mark(s), inner = ak_stack_mark(s);
    if (first == NULL || !ak_stack_release(s, outer)) return 2;
    errno = 0;
    if (ak_stack_release(s, inner)) return 10;
    if (errno != EINVAL || ak_stack_check(s) != 0 || !ak_stack_pop(s, first)) return 11;
    ak_stack_destroy(s);
    return finish(1);
}

/* FAULT */
/* EXPECT-ERR: allokit: release of 0xADDR in stack "frames": released out of order */
/* EXPECT-SITES: |  stack made at stack_mark_ended.c:7 */
/* EXPECT-SITES: |  release at stack_mark_ended.c:12 */
/* EXPECT-HANDLER: handler: out of order */
