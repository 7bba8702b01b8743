/* Frees an address inside a block that is aligned as a block would be. */
#include "misuse.h"

int main(void) {
    char *p = (char *)ak_alloc(100);
    ak_free(hidden(p + 16));
    ak_free(p);
    return finish(1);
}

/* FAULT */
/* EXPECT-ERR: allokit: free of 0xADDR, which is 16 bytes into a block of 100 bytes at 0xADDR2 */
/* EXPECT-ERR: |  allocated at free_interior_aligned.c:5 (main) */
/* EXPECT-ERR: |  freed at     free_interior_aligned.c:6 (main) */
