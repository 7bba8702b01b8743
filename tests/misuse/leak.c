/* Loses blocks from two places. */
#include "misuse.h"

void *make_buffer(void);
void *make_buffer(void) {
    return ak_alloc(600);
}

int main(void) {
    void *lost[3];
    lost[0] = make_buffer();
    lost[1] = make_buffer();
    lost[2] = ak_alloc(34);
    if (lost[0] == NULL || lost[1] == NULL || lost[2] == NULL) return 2;
    return ak_leaks_print() == 3 ? 0 : 3;
}

/* STATUS: 0 */
/* EXPECT-ERR: allokit: 3 live blocks, 1234 bytes, from 2 call sites */
/* EXPECT-ERR: |           count         bytes  call site */
/* EXPECT-ERR: |               2          1200  leak.c:6 (make_buffer) */
/* EXPECT-ERR: |               1            34  leak.c:13 (main) */
