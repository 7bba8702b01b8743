/* Pops the newest block of a stack twice. */
#include "misuse.h"

int main(void) {
    watch(AK_FAULT_DOUBLE_FREE, "pop", "stack", "frames", 7, 11);
    ak_stack_opts_t opts = {.struct_size = sizeof opts, .name = "frames"};
    ak_stack_t *s = ak_stack_new(4000, &opts);
    void *old = ak_stack_push(s, 50), *newest = ak_stack_push(s, 50);
    if (!ak_stack_pop(s, newest)) return 2;
    errno = 0;
    if (ak_stack_pop(s, hidden(newest))) return 10;
    if (errno != EINVAL || ak_stack_check(s) != 0 || !ak_stack_pop(s, old)) return 11;
    ak_stack_destroy(s);
    return finish(1);
}

/* FAULT */
/* EXPECT-ERR: allokit: pop of 0xADDR in stack "frames": double free */
/* EXPECT-SITES: |  stack made at stack_pop_twice.c:7 */
/* EXPECT-SITES: |  pop at stack_pop_twice.c:11 */
/* EXPECT-HANDLER: handler: double free */
