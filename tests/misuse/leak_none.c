/* Loses nothing. */
#include "misuse.h"

int main(void) {
    void *p = ak_alloc(10);
    ak_free(p);
    return ak_leaks_print() == 0 ? 0 : 1;
}

/* STATUS: 0 */
/* ENV: ALLOKIT_LEAKS=1 */
/* EXPECT-ERR: allokit: no live blocks */
/* EXPECT-ERR: allokit: no live blocks */
