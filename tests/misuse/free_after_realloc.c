/* Frees the old address of a block that realloc moved. */
#include "misuse.h"

int main(void) {
    char *p = (char *)ak_alloc(24);
    void *old = hidden(p);
    char *moved = (char *)ak_realloc(p, 4 << 20);
    if (moved == NULL || (void *)moved == old) return 2;
    ak_free(old);
    ak_free(moved);
    return finish(1);
}

/* FAULT */
/* EXPECT-ERR: allokit: double free of 0xADDR, a block of 24 bytes */
/* EXPECT-ERR: |  allocated at free_after_realloc.c:5 (main) */
/* EXPECT-ERR: |  freed at     free_after_realloc.c:7 (main) */
/* EXPECT-ERR: |  freed again  free_after_realloc.c:9 (main) */
