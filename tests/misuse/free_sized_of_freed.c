/* Frees a freed block by size. */
#include "misuse.h"

int main(void) {
    void *p = ak_alloc(24);
    ak_free(p);
    ak_free_sized(hidden(p), 24);
    return finish(1);
}

/* FAULT */
/* EXPECT-ERR: allokit: double free of 0xADDR, a block of 24 bytes */
/* EXPECT-ERR: |  allocated at free_sized_of_freed.c:5 (main) */
/* EXPECT-ERR: |  freed at     free_sized_of_freed.c:6 (main) */
/* EXPECT-ERR: |  freed again  free_sized_of_freed.c:7 (main) */
