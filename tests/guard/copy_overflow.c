/* memcpy of one byte too many. */
#include "guard.h"

static char from[SIZE + 1];

int main(void) {
    char *p = hidden(malloc(SIZE));
    memcpy(p, hidden(from), number(SIZE + 1));
    free(p);
    return 0;
}

/* EXPECT: allokit: memcpy of @OVER@ bytes to 0xADDR, which is 0 bytes into a block of @SIZE@ bytes at 0xADDR: 1 byte too many */
/* EXPECT: |  allocated at copy_overflow.c:7 (main) */
/* EXPECT: |  called at    copy_overflow.c:8 (main) */
/* MUTE 8 4096: copy,overflow */
/* MUTE 262144: copy,overflow,pages */
