/* Writes before the start, past the header. */
#include "guard.h"

int main(void) {
    char *p = hidden(malloc(SIZE));
    p[-32] ^= 'A';
    free(p);
    return 0;
}

/* EXPECT 8 4096: allokit: underflow of 0xADDR, a block of @SIZE@ bytes: written before its start */
/* EXPECT 8 4096: |  allocated at underflow_far.c:5 (main) */
/* EXPECT 8 4096: |  freed at     underflow_far.c:7 (main) */
/* DIES 262144: SIGSEGV */
/* MUTE 8 4096: underflow */
