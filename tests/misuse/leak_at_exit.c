/* Loses a block; the list comes at exit because the environment asks for it. */
#include "misuse.h"

int main(void) {
    return ak_alloc(1234) == NULL;
}

/* STATUS: 0 */
/* ENV: ALLOKIT_LEAKS=1 */
/* EXPECT-ERR: allokit: 1 live blocks, 1234 bytes, from 1 call sites */
/* EXPECT-ERR: |           count         bytes  call site */
/* EXPECT-ERR: |               1          1234  leak_at_exit.c:5 (main) */
