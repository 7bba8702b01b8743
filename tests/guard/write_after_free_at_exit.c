/* Writes to a freed block in the middle and ends. */
#include "guard.h"

int main(void) {
    char *p = hidden(malloc(SIZE + 16));
    free(p);
    hidden(p)[SIZE] = 'x';
    return 0;
}

/* EXPECT 8: allokit: write after free to 0xADDR, a block of 24 bytes: from offset 8 to 8 */
/* EXPECT 4096: allokit: write after free to 0xADDR, a block of 4112 bytes: from offset 4096 to 4096 */
/* EXPECT 8 4096: |  allocated at write_after_free_at_exit.c:5 (main) */
/* EXPECT 8 4096: |  freed at     write_after_free_at_exit.c:6 (main) */
/* DIES 262144: SIGSEGV */
/* MUTE 8 4096: write-after-free */
