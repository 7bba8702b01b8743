/* Frees an aligned block twice. */
#include "misuse.h"

int main(void) {
    void *p = ak_alloc_aligned(200, 4096);
    ak_free_sized(p, 200);
    ak_free(hidden(p));
    return finish(1);
}

/* FAULT */
/* EXPECT-ERR: allokit: double free of 0xADDR, a block of 200 bytes */
/* EXPECT-ERR: |  allocated at double_free_aligned.c:5 (main) */
/* EXPECT-ERR: |  freed at     double_free_aligned.c:6 (main) */
/* EXPECT-ERR: |  freed again  double_free_aligned.c:7 (main) */
