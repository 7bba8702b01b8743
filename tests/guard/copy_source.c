/* memcpy of more than the source holds: what lies behind it is a secret of somebody. */
#include "guard.h"

static char to[SIZE + 8];

int main(void) {
    char *p = hidden(malloc(SIZE));
    memcpy(hidden(to), p + 1, number(SIZE));
    free(p);
    return 0;
}

/* EXPECT: allokit: memcpy of @SIZE@ bytes from 0xADDR, which is 1 byte into a block of @SIZE@ bytes at 0xADDR2: 1 byte too many */
/* EXPECT: |  allocated at copy_source.c:7 (main) */
/* EXPECT: |  called at    copy_source.c:8 (main) */
/* MUTE 8 4096: copy */
/* MUTE 262144: copy,pages */
