/* Frees the address one past the end of a block. */
#include "misuse.h"

int main(void) {
    char *p = (char *)ak_alloc(64);
    ak_free(hidden(p + 64));
    ak_free(p);
    return finish(1);
}

/* FAULT */
/* EXPECT-ERR: allokit: free of 0xADDR, which is no live block of this allocator */
/* EXPECT-ERR: |  freed at     free_past_the_end.c:6 (main) */
