/* Frees what lies on the stack. */
#include "guard.h"

int main(void) {
    char block[SIZE];
    memset(block, 0, SIZE);
    free(hidden(block));
    return 0;
}

/* EXPECT: allokit: free of 0xADDR, which is no live block of this allocator */
/* EXPECT: |  freed at     invalid_free_stack.c:7 (main) */
/* MUTE: invalid-free */
