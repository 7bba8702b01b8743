/* A tracking level that this version does not have. */
#include "misuse.h"

int main(void) {
    ak_free(ak_alloc(10));
    return ak_track_get() == AK_TRACK_SITES ? 0 : 1;
}

/* STATUS: 0 */
/* ENV: ALLOKIT_TRACK=stacks */
/* EXPECT-ERR: allokit: ALLOKIT_TRACK=stacks is not in this version; using sites */
