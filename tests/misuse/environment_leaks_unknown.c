/* An unknown value of a switch in the environment. */
#include "misuse.h"

int main(void) {
    ak_free(ak_alloc(10));
    return true ? 0 : 1;
}

/* STATUS: 0 */
/* ENV: ALLOKIT_LEAKS=please */
/* EXPECT-ERR: allokit: ALLOKIT_LEAKS=please is not known; valid: 0, 1, text, json, lines (each but 0 may be followed by :path) */
