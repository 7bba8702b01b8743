/* Asks a library that was built without tracking to track, by the environment. */
#include "misuse.h"

int main(void) {
    void *lost = ak_alloc(7);
    if (lost == NULL || ak_track_get() != AK_TRACK_OFF) return 2;
    if (!ak_assert_balanced("shutdown")) return 3;
    return ak_leaks_print() == 0 ? 0 : 3;
}

/* STATUS: 0 */
/* BUILD: notrack */
/* ENV: ALLOKIT_TRACK=sites */
/* EXPECT-ERR: allokit: ALLOKIT_TRACK=sites is ignored: this library was built without tracking (ALLOKIT_TRACK=OFF) */
/* EXPECT-ERR: allokit: shutdown: balance is unknown: this library was built without tracking (ALLOKIT_TRACK=OFF) */
/* EXPECT-ERR: allokit: leaks are unknown: this library was built without tracking (ALLOKIT_TRACK=OFF) */
