/* Resizes a block that is already freed. */
#include "misuse.h"

int main(void) {
    char *p = (char *)ak_alloc(24);
    ak_free(p);
    errno = 0;
    void *q = ak_realloc(hidden(p), 100);
    if (q != NULL || errno != EINVAL) return 7;
    return finish(1);
}

/* FAULT */
/* EXPECT-ERR: allokit: realloc of 0xADDR, a block of 24 bytes that is already freed */
/* EXPECT-ERR: |  allocated at realloc_freed.c:5 (main) */
/* EXPECT-ERR: |  freed at     realloc_freed.c:6 (main) */
/* EXPECT-ERR: |  resized at   realloc_freed.c:8 (main) */
