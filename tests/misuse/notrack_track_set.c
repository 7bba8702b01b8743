/* Asks a library that was built without tracking to track, by a call. */
#include "misuse.h"

int main(void) {
    errno = 0;
    if (ak_track_set(AK_TRACK_SITES) || errno != ENOTSUP || ak_track_get() != AK_TRACK_OFF) return 2;
    if (!ak_track_set(AK_TRACK_OFF)) return 3;
    return finish(0);
}

/* STATUS: 0 */
/* BUILD: notrack */
/* ENV: ALLOKIT_TRACK=off */
