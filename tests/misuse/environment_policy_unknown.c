/* An unknown policy in the environment. */
#include "misuse.h"

int main(void) {
    ak_free(ak_alloc(10));
    return ak_policy_get() == AK_POLICY_ABORT ? 0 : 1;
}

/* STATUS: 0 */
/* ENV: ALLOKIT_POLICY=loud */
/* EXPECT-ERR: allokit: ALLOKIT_POLICY=loud is not known; valid: abort, report, quiet */
