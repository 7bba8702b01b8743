/* Loses a block after the mark; policy quiet. */
#include "misuse.h"

int main(void) {
    void *before = ak_alloc(100);
    ak_mark();
    void *after = ak_alloc(34);
    if (before == NULL || after == NULL) return 2;
    return ak_assert_balanced("shutdown") ? 3 : 0;
}

/* STATUS: 0 */
/* ENV: ALLOKIT_POLICY=quiet */
