/* Writes one byte far past the end, beyond everything that guards the block itself. */
#include "guard.h"

int main(void) {
    char *p = hidden(malloc(SIZE));
    p[SIZE + 31] ^= 'A';
    free(p);
    return 0;
}

/* EXPECT 8 4096: allokit: overflow of 0xADDR, a block of @SIZE@ bytes: written up to 32 bytes past its end, first at offset @FAR@ */
/* EXPECT 8 4096: |  allocated at overflow_far.c:5 (main) */
/* EXPECT 8 4096: |  freed at     overflow_far.c:7 (main) */
/* DIES 262144: SIGSEGV */
/* MUTE 8 4096: underflow */
/* MUTE 262144: overflow,underflow,pages */
