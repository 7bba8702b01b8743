/* Resizes a local variable. */
#include "misuse.h"

int main(void) {
    char local[64] = {0};
    errno = 0;
    void *q = ak_realloc(hidden(local), 100);
    if (q != NULL || errno != EINVAL) return 7;
    return finish(1);
}

/* FAULT */
/* EXPECT-ERR: allokit: realloc of 0xADDR, which is no live block of this allocator */
/* EXPECT-ERR: |  resized at   realloc_stack.c:7 (main) */
