/* Reads a freed block: nothing of what was in it. */
#include "guard.h"

int main(void) {
    char *p = hidden(malloc(SIZE));
    memset(p, 'S', SIZE);
    free(p);
    for (size_t i = 0; i < SIZE; i++) REQUIRE(hidden(p)[i] == 0);
    return 0;
}

/* NOTHING 8 4096 */
/* DIES 262144: SIGSEGV */
