/* An unknown format of statistics in the environment. */
#include "misuse.h"

int main(void) {
    ak_free(ak_alloc(10));
    return true ? 0 : 1;
}

/* STATUS: 0 */
/* ENV: ALLOKIT_STATS=xml */
/* EXPECT-ERR: allokit: ALLOKIT_STATS=xml is not known; valid: text, json, prometheus, openmetrics (each may be followed by :path) */
