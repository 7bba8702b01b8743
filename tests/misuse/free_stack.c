/* Frees a local variable. */
#include "misuse.h"

int main(void) {
    char local[64] = {0};
    ak_free(hidden(local + 16));
    return finish(1);
}

/* FAULT */
/* EXPECT-ERR: allokit: free of 0xADDR, which is no live block of this allocator */
/* EXPECT-ERR: |  freed at     free_stack.c:6 (main) */
