/* Resizes a freed block to nothing, which frees it again. */
#include "misuse.h"

int main(void) {
    char *p = (char *)ak_alloc(24);
    ak_free(p);
    void *q = ak_realloc(hidden(p), 0);
    if (q != NULL) return 7;
    return finish(1);
}

/* FAULT */
/* EXPECT-ERR: allokit: double free of 0xADDR, a block of 24 bytes */
/* EXPECT-ERR: |  allocated at realloc_to_zero_freed.c:5 (main) */
/* EXPECT-ERR: |  freed at     realloc_to_zero_freed.c:6 (main) */
/* EXPECT-ERR: |  freed again  realloc_to_zero_freed.c:7 (main) */
