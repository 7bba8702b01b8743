/* Frees a block twice, with a few pairs of the same size between. */
#include "guard.h"

int main(void) {
    char *p = hidden(malloc(SIZE));
    free(p);
    for (int i = 0; i < 10; i++) free(hidden(malloc(SIZE)));
    free(hidden(p));
    return 0;
}

/* EXPECT: allokit: double free of 0xADDR, a block of @SIZE@ bytes */
/* EXPECT: |  allocated at double_free_later.c:5 (main) */
/* EXPECT: |  freed at     double_free_later.c:6 (main) */
/* EXPECT: |  freed again  double_free_later.c:8 (main) */
/* MUTE: invalid-free */
