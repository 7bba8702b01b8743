/* Turns tracking on by a call before the first allocation. */
#include "misuse.h"

int main(void) {
    if (!ak_track_set(AK_TRACK_SITES) || ak_track_get() != AK_TRACK_SITES) return 2;
    void *lost = ak_alloc(7);
    if (lost == NULL) return 2;
    return ak_leaks_print() == 1 ? 0 : 3;
}

/* STATUS: 0 */
/* ENV: ALLOKIT_TRACK=off */
/* EXPECT-ERR: allokit: 1 live blocks, 7 bytes, from 1 call sites */
/* EXPECT-ERR: |           count         bytes  call site */
/* EXPECT-ERR: |               1             7  track_set_first.c:6 (main) */
