/* The backend that this library holds. */
#include "misuse.h"

int main(void) {
    ak_free(ak_alloc(10));
    return true ? 0 : 1;
}

/* STATUS: 0 */
/* ENV: ALLOKIT_BACKEND=@BACKEND@ */
