/* Writes one byte before the start. */
#include "guard.h"

int main(void) {
    char *p = hidden(malloc(SIZE));
    p[-1] ^= 'A';
    free(p);
    return 0;
}

/* EXPECT 8 4096: allokit: block at 0xADDR is damaged: its header was overwritten */
/* EXPECT 8 4096: |  freed at     underflow_one.c:7 (main) */
/* DIES 262144: SIGSEGV */
/* MUTE 262144: underflow,pages */
