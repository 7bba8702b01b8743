/* Pops the middle of a block. */
#include "misuse.h"

int main(void) {
    watch(AK_FAULT_ALLOCATOR_MISMATCH, "pop", "stack", "frames", 7, 11);
    ak_stack_opts_t opts = {.struct_size = sizeof opts, .name = "frames"};
    ak_stack_t *s = ak_stack_new(4000, &opts);
    char *block = (char *)ak_stack_push(s, 50);
    memset(block, 0, 50);
    errno = 0;
    if (ak_stack_pop(s, hidden(block + 16))) return 10;
    if (errno != EINVAL || ak_stack_check(s) != 0 || !ak_stack_pop(s, block)) return 11;
    ak_stack_destroy(s);
    return finish(1);
}

/* FAULT */
/* EXPECT-ERR: allokit: pop of 0xADDR in stack "frames": what is given belongs to another owner or to none */
/* EXPECT-SITES: |  stack made at stack_pop_interior.c:7 */
/* EXPECT-SITES: |  pop at stack_pop_interior.c:11 */
/* EXPECT-HANDLER: handler: allocator mismatch */
