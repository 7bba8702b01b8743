/* Turns tracking on after the first allocation, on a backend that must know before: refused, and nothing changes. */
#include "misuse.h"

int main(void) {
    void *lost = ak_alloc(7);
    errno = 0;
    if (lost == NULL || ak_track_set(AK_TRACK_SITES) || errno != EBUSY || ak_track_get() != AK_TRACK_OFF) return 2;
    return ak_leaks_print() == 0 ? 0 : 3;
}

/* EXCEPT: native */
/* STATUS: 0 */
/* ENV: ALLOKIT_TRACK=off */
/* EXPECT-ERR: allokit: leaks are unknown: tracking is off (set ALLOKIT_TRACK=sites before the program starts) */
