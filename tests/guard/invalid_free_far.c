/* Frees what is an address, but nobody's, and another in static memory. */
#include "guard.h"

static char block[SIZE + 16];

int main(void) {
    char *p = hidden(malloc(SIZE));
    free(hidden(p + ((size_t)1 << 30)));
    free(hidden((char *)(((size_t)block + 15) & ~(size_t)15)));
    free(p);
    return 0;
}

/* EXPECT: allokit: free of 0xADDR, which is no live block of this allocator */
/* EXPECT: |  freed at     invalid_free_far.c:8 (main) */
/* EXPECT REPORT: allokit: free of 0xADDR2, which is no live block of this allocator */
/* EXPECT REPORT: |  freed at     invalid_free_far.c:9 (main) */
/* MUTE: invalid-free */
