/* Loses a block before the mark and none after it. */
#include "misuse.h"

int main(void) {
    void *before = ak_alloc(100);
    ak_mark();
    void *after = ak_alloc(34);
    if (before == NULL || after == NULL) return 2;
    ak_free(after);
    return ak_assert_balanced("shutdown") ? 0 : 3;
}

/* STATUS: 0 */
