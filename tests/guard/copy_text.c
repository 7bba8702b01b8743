/* strcpy of a text whose zero does not fit. */
#include "guard.h"

static char from[SIZE + 1];

int main(void) {
    char *p = hidden(malloc(SIZE));
    memset(from, 'x', SIZE);
    strcpy(p, hidden(from));
    free(p);
    return 0;
}

/* EXPECT: allokit: strcpy of @OVER@ bytes to 0xADDR, which is 0 bytes into a block of @SIZE@ bytes at 0xADDR: 1 byte too many */
/* EXPECT: |  allocated at copy_text.c:7 (main) */
/* EXPECT: |  called at    copy_text.c:9 (main) */
/* MUTE 8 4096: copy,overflow */
/* MUTE 262144: copy,overflow,pages */
