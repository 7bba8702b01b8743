/* Frees a large block twice: its memory may be unmapped by then, so nothing may look into it. */
#include "misuse.h"

int main(void) {
    char *p = (char *)ak_alloc(5 << 20);
    ak_free(p);
    ak_free(hidden(p));
    return finish(1);
}

/* FAULT */
/* EXPECT-ERR: allokit: double free of 0xADDR, a block of 5242880 bytes */
/* EXPECT-ERR: |  allocated at double_free_large.c:5 (main) */
/* EXPECT-ERR: |  freed at     double_free_large.c:6 (main) */
/* EXPECT-ERR: |  freed again  double_free_large.c:7 (main) */
