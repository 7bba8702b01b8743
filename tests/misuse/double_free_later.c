/* Frees a block twice, with other calls between. */
#include "misuse.h"

int main(void) {
    char *p = (char *)ak_calloc(3, 100);
    void *others[10];
    for (int i = 0; i < 10; i++) others[i] = ak_alloc(5000);
    ak_free(p);
    for (int i = 0; i < 10; i++) ak_free(others[i]);
    ak_free(hidden(p));
    return finish(1);
}

/* FAULT */
/* EXPECT-ERR: allokit: double free of 0xADDR, a block of 300 bytes */
/* EXPECT-ERR: |  allocated at double_free_later.c:5 (main) */
/* EXPECT-ERR: |  freed at     double_free_later.c:8 (main) */
/* EXPECT-ERR: |  freed again  double_free_later.c:10 (main) */
