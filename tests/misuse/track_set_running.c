/* Turns tracking on after the first allocation, frees a block from before, and loses one from since. */
#include "misuse.h"

int main(void) {
    void *before = ak_alloc(7);
    if (before == NULL || !ak_track_set(AK_TRACK_SITES) || ak_track_get() != AK_TRACK_SITES) return 2;
    void *lost = ak_alloc(70);
    if (lost == NULL) return 2;
    ak_free(before);
    return ak_leaks_print() == 1 ? 0 : 3;
}

/* ONLY: native */
/* STATUS: 0 */
/* ENV: ALLOKIT_TRACK=off */
/* EXPECT-ERR: allokit: 1 live blocks, 70 bytes, from 1 call sites */
/* EXPECT-ERR: |           count         bytes  call site */
/* EXPECT-ERR: |               1            70  track_set_running.c:7 (main) */
