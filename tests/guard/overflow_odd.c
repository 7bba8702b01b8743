/* Writes three bytes past the end of a block whose size is no multiple of anything; a realloc finds it. */
#include "guard.h"

int main(void) {
    char *p = hidden(malloc(SIZE - 5));
    p[SIZE - 4] = p[SIZE - 3] = 'x';
    p = hidden(realloc(p, 3 * SIZE));
    free(p);
    return 0;
}

/* EXPECT 8: allokit: overflow of 0xADDR, a block of 3 bytes: written up to 3 bytes past its end, first at offset 4 */
/* EXPECT 4096: allokit: overflow of 0xADDR, a block of 4091 bytes: written up to 3 bytes past its end, first at offset 4092 */
/* EXPECT 262144: allokit: overflow of 0xADDR, a block of 262139 bytes: written up to 3 bytes past its end, first at offset 262140 */
/* EXPECT: |  allocated at overflow_odd.c:5 (main) */
/* EXPECT 8 4096: |  resized at   overflow_odd.c:7 (main) */
/* EXPECT 262144: |  freed at     overflow_odd.c:7 (main) */
/* MUTE: overflow */
