/* Uses a stack after its end; it lay in a buffer. */
#include "misuse.h"

static char memory[4000];

int main(void) {
    watch(AK_FAULT_USE_AFTER_DESTROY, "push", "stack", NULL, 0, 0);
    ak_stack_opts_t opts = {.struct_size = sizeof opts, .buffer = memory};
    ak_stack_t *s = ak_stack_new(sizeof memory, &opts);
    ak_stack_destroy(s);
    errno = 0;
    if (ak_stack_push((ak_stack_t *)hidden(s), 10) != NULL || errno != EINVAL) return 10;
    return finish(1);
}

/* FAULT */
/* EXPECT-ERR: allokit: push of 0xADDR in stack: it has been destroyed, or never was one */
/* EXPECT-HANDLER: handler: use after destroy */
