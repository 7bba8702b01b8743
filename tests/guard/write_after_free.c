/* Writes to a freed block; the next allocation finds it. */
#include "guard.h"

int main(void) {
    char *p = hidden(malloc(SIZE));
    free(p);
    hidden(p)[2] = 'x';
    free(hidden(malloc(SIZE)));
    return 0;
}

/* EXPECT 8 4096: allokit: write after free to 0xADDR, a block of @SIZE@ bytes: from offset 2 to 2 */
/* EXPECT 8 4096: |  allocated at write_after_free.c:5 (main) */
/* EXPECT 8 4096: |  freed at     write_after_free.c:6 (main) */
/* EXPECT 8 4096: |  noticed at   write_after_free.c:8 (main) */
/* DIES 262144: SIGSEGV */
/* MUTE 8 4096: write-after-free,underflow */
