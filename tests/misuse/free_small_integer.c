/* Frees a small number that was taken for a pointer. */
#include "misuse.h"

int main(void) {
    ak_free(hidden((const void *)(uintptr_t)16));
    return finish(1);
}

/* FAULT */
/* EXPECT-ERR: allokit: free of 0x10, which is no live block of this allocator */
/* EXPECT-ERR: |  freed at     free_small_integer.c:5 (main) */
