/* Frees the address of a function. */
#include "misuse.h"

int main(void) {
    ak_free(hidden((const void *)(uintptr_t)finish));
    return finish(1);
}

/* FAULT */
/* EXPECT-ERR: allokit: free of 0xADDR, which is no live block of this allocator */
/* EXPECT-ERR: |  freed at     free_code.c:5 (main) */
