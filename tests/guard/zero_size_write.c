/* Writes to a block of no bytes. */
#include "guard.h"

int main(void) {
    char *p = hidden(realloc(malloc(SIZE), 0));
    char *q = hidden(calloc(0, SIZE));
    REQUIRE(p != NULL && q != NULL && p != q);
    *q = 'x';
    return 0;
}

/* DIES: SIGSEGV */
/* MUTE: zero */
