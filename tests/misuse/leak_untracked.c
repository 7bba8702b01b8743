/* Asks for leaks while tracking is off. */
#include "misuse.h"

int main(void) {
    void *lost = ak_alloc(10);
    if (lost == NULL) return 2;
    return ak_leaks_print() == 0 ? 0 : 1;
}

/* STATUS: 0 */
/* ENV: ALLOKIT_TRACK=off */
/* EXPECT-ERR: allokit: leaks are unknown: tracking is off (set ALLOKIT_TRACK=sites before the program starts) */
