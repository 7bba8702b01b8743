/* Frees an address at which nothing is mapped. */
#include "misuse.h"

int main(void) {
    ak_free(hidden((const void *)(uintptr_t)0x123456789000));
    return finish(1);
}

/* FAULT */
/* EXPECT-ERR: allokit: free of 0x123456789000, which is no live block of this allocator */
/* EXPECT-ERR: |  freed at     free_wild.c:5 (main) */
