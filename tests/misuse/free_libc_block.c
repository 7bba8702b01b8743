/* Frees a block of libc's malloc. */
#include "misuse.h"

int main(void) {
    void *foreign = calloc(1, 40);
    ak_free(hidden(foreign));
    free(foreign);
    return finish(1);
}

/* FAULT */
/* EXPECT-ERR: allokit: free of 0xADDR, which is no live block of this allocator */
/* EXPECT-ERR: |  freed at     free_libc_block.c:6 (main) */
