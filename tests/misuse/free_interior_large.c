/* Frees an address far inside a large block. */
#include "misuse.h"

int main(void) {
    char *p = (char *)ak_alloc(3145728);
    ak_free(hidden(p + 1048576));
    ak_free(p);
    return finish(1);
}

/* FAULT */
/* EXPECT-ERR: allokit: free of 0xADDR, which is 1048576 bytes into a block of 3145728 bytes at 0xADDR2 */
/* EXPECT-ERR: |  allocated at free_interior_large.c:5 (main) */
/* EXPECT-ERR: |  freed at     free_interior_large.c:6 (main) */
