/* Two unknown values: each is reported once, the program works. */
#include "misuse.h"

int main(void) {
    ak_free(ak_alloc(10));
    return ak_track_get() == AK_TRACK_OFF ? 0 : 1;
}

/* STATUS: 0 */
/* ENV: ALLOKIT_TRACK=on ALLOKIT_POLICY=1 */
/* EXPECT-ERR: allokit: ALLOKIT_TRACK=on is not known; valid: off, sites, stacks */
/* EXPECT-ERR: allokit: ALLOKIT_POLICY=1 is not known; valid: abort, report, quiet */
