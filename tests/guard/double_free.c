/* Frees a block twice. */
#include "guard.h"

int main(void) {
    char *p = hidden(malloc(SIZE));
    free(p);
    free(hidden(p));
    return 0;
}

/* EXPECT: allokit: double free of 0xADDR, a block of @SIZE@ bytes */
/* EXPECT: |  allocated at double_free.c:5 (main) */
/* EXPECT: |  freed at     double_free.c:6 (main) */
/* EXPECT: |  freed again  double_free.c:7 (main) */
/* MUTE: invalid-free */
