/* Resizes an address inside a block. */
#include "misuse.h"

int main(void) {
    char *p = (char *)ak_alloc(24);
    errno = 0;
    void *q = ak_reallocarray(hidden(p + 8), 10, 10);
    if (q != NULL || errno != EINVAL) return 7;
    ak_free(p);
    return finish(1);
}

/* FAULT */
/* EXPECT-ERR: allokit: realloc of 0xADDR, which is 8 bytes into a block of 24 bytes at 0xADDR2 */
/* EXPECT-ERR: |  allocated at realloc_interior.c:5 (main) */
/* EXPECT-ERR: |  resized at   realloc_interior.c:7 (main) */
