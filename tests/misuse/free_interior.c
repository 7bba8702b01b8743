/* Frees an address inside a block. */
#include "misuse.h"

int main(void) {
    char *p = (char *)ak_alloc(24);
    ak_free(hidden(p + 8));
    ak_free(p);
    return finish(1);
}

/* FAULT */
/* EXPECT-ERR: allokit: free of 0xADDR, which is 8 bytes into a block of 24 bytes at 0xADDR2 */
/* EXPECT-ERR: |  allocated at free_interior.c:5 (main) */
/* EXPECT-ERR: |  freed at     free_interior.c:6 (main) */
