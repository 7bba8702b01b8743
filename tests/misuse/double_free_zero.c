/* Frees a block of no bytes twice. */
#include "misuse.h"

int main(void) {
    void *p = ak_alloc(0);
    ak_free(p);
    ak_free(hidden(p));
    return finish(1);
}

/* FAULT */
/* EXPECT-ERR: allokit: double free of 0xADDR, a block of 0 bytes */
/* EXPECT-ERR: |  allocated at double_free_zero.c:5 (main) */
/* EXPECT-ERR: |  freed at     double_free_zero.c:6 (main) */
/* EXPECT-ERR: |  freed again  double_free_zero.c:7 (main) */
