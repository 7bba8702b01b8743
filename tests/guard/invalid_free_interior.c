/* Frees the middle of a block. */
#include "guard.h"

int main(void) {
    char *p = hidden(malloc(SIZE));
    free(hidden(p + 4));
    free(p);
    return 0;
}

/* EXPECT: allokit: free of 0xADDR, which is 4 bytes into a block of @SIZE@ bytes at 0xADDR2 */
/* EXPECT: |  allocated at invalid_free_interior.c:5 (main) */
/* EXPECT: |  freed at     invalid_free_interior.c:6 (main) */
/* MUTE: invalid-free */
