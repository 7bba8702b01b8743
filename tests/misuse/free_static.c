/* Frees a static variable. */
#include "misuse.h"

int main(void) {
    static long buffer[32];
    ak_free(hidden(buffer));
    return finish(1);
}

/* FAULT */
/* EXPECT-ERR: allokit: free of 0xADDR, which is no live block of this allocator */
/* EXPECT-ERR: |  freed at     free_static.c:6 (main) */
