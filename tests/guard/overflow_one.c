/* Writes one byte past the end. */
#include "guard.h"

int main(void) {
    char *p = hidden(malloc(SIZE));
    p[SIZE] ^= 'A';
    free(p);
    return 0;
}

/* EXPECT 8 4096: allokit: overflow of 0xADDR, a block of @SIZE@ bytes: written up to 1 byte past its end, first at offset @SIZE@ */
/* EXPECT 8 4096: |  allocated at overflow_one.c:5 (main) */
/* EXPECT 8 4096: |  freed at     overflow_one.c:7 (main) */
/* DIES 262144: SIGSEGV */
/* MUTE 8 4096: overflow */
/* MUTE 262144: overflow,pages */
