/* Reads a block of no bytes. */
#include "guard.h"

int main(void) {
    char *p = hidden(malloc(SIZE - SIZE));
    REQUIRE(p != NULL);
    volatile char c = *p;
    free(p);
    return c == 'x';
}

/* DIES: SIGSEGV */
/* MUTE: zero */
