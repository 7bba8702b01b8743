/* Asserts balance while tracking is off. */
#include "misuse.h"

int main(void) {
    void *lost = ak_alloc(34);
    if (lost == NULL) return 2;
    return ak_assert_balanced(NULL) ? 0 : 3;
}

/* STATUS: 0 */
/* ENV: ALLOKIT_TRACK=off */
/* EXPECT-ERR: allokit: assert_balanced: balance is unknown: tracking is off (set ALLOKIT_TRACK=sites before the program starts) */
