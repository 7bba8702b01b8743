/* An unknown tracking level in the environment. */
#include "misuse.h"

int main(void) {
    ak_free(ak_alloc(10));
    return ak_track_get() == AK_TRACK_OFF ? 0 : 1;
}

/* STATUS: 0 */
/* ENV: ALLOKIT_TRACK=foo */
/* EXPECT-ERR: allokit: ALLOKIT_TRACK=foo is not known; valid: off, sites, stacks */
