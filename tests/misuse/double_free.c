/* Frees a block twice. */
#include "misuse.h"

int main(void) {
    char *p = (char *)ak_alloc(24);
    ak_free(p);
    ak_free(hidden(p));
    return finish(1);
}

/* FAULT */
/* EXPECT-ERR: allokit: double free of 0xADDR, a block of 24 bytes */
/* EXPECT-ERR: |  allocated at double_free.c:5 (main) */
/* EXPECT-ERR: |  freed at     double_free.c:6 (main) */
/* EXPECT-ERR: |  freed again  double_free.c:7 (main) */
