/* Releases a stack to a mark of another one. */
#include "misuse.h"

int main(void) {
    watch(AK_FAULT_ALLOCATOR_MISMATCH, "release", "stack", "frames", 7, 12);
    ak_stack_opts_t opts = {.struct_size = sizeof opts, .name = "frames"};
    ak_stack_t *s = ak_stack_new(4000, &opts);
    ak_stack_t *other = ak_stack_new(4000, NULL);
    ak_stack_mark_t mark = ak_stack_mark(other);
    char *kept = (char *)ak_stack_push(s, 50);
    errno = 0;
    if (ak_stack_release(s, mark)) return 10;
    if (errno != EINVAL || !ak_stack_pop(s, kept) || !ak_stack_release(other, mark)) return 11;
    ak_stack_destroy(other);
    ak_stack_destroy(s);
    return finish(1);
}

/* FAULT */
/* EXPECT-ERR: allokit: release of 0xADDR in stack "frames": what is given belongs to another owner or to none */
/* EXPECT-SITES: |  stack made at stack_mark_of_another.c:7 */
/* EXPECT-SITES: |  release at stack_mark_of_another.c:12 */
/* EXPECT-HANDLER: handler: allocator mismatch */
