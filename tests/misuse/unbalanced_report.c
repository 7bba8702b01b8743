/* Loses a block after the mark; policy report. */
#include "misuse.h"

int main(void) {
    void *before = ak_alloc(100);
    ak_mark();
    void *after = ak_alloc(34);
    if (before == NULL || after == NULL) return 2;
    return ak_assert_balanced("shutdown") ? 3 : 0;
}

/* STATUS: 0 */
/* ENV: ALLOKIT_POLICY=report */
/* EXPECT-ERR: allokit: shutdown: 1 blocks, 34 bytes, live since the mark, from 1 call sites */
/* EXPECT-ERR: |           count         bytes  call site */
/* EXPECT-ERR: |               1            34  unbalanced_report.c:7 (main) */
