/* A backend in the environment that this library does not hold. */
#include "misuse.h"

int main(void) {
    ak_free(ak_alloc(10));
    return true ? 0 : 1;
}

/* STATUS: 0 */
/* ENV: ALLOKIT_BACKEND=tcmalloc */
/* EXPECT-ERR: allokit: ALLOKIT_BACKEND=tcmalloc is not known; valid: native, mimalloc, jemalloc, system */
