/* Stacks, and settings of theirs that are not understood. */
#include "misuse.h"

int main(void) {
    ak_free(ak_alloc(10));
    return ak_track_get() == AK_TRACK_STACKS && ak_track_sample_get() == 0 ? 0 : 1;
}

/* STATUS: 0 */
/* ENV: ALLOKIT_TRACK=stacks ALLOKIT_SAMPLE=often ALLOKIT_STACK_DEPTH=0 */
/* EXPECT-ERR: allokit: ALLOKIT_SAMPLE=often is not known; valid: a number of bytes, such as 512K, of which one is sampled; 0 for each allocation */
/* EXPECT-ERR: allokit: ALLOKIT_STACK_DEPTH=0 is not known; valid: a number of frames, from 1 to 128 */
