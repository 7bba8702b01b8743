/* Asks for the usable size of a local variable. */
#include "misuse.h"

int main(void) {
    char local[64] = {0};
    if (ak_usable_size(hidden(local)) != 0) return 7;
    return finish(1);
}

/* FAULT */
/* EXPECT-ERR: allokit: usable size of 0xADDR, which is no live block of this allocator */
/* EXPECT-ERR: |  asked at     usable_size_stack.c:6 (main) */
