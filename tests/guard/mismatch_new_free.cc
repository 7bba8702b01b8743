/* new, then free. */
#include "guard.h"
#include <new>

int main() {
    void *p = hidden(::operator new(SIZE));
    free(p);
    return 0;
}

/* EXPECT: allokit: mismatch at 0xADDR, a block of @SIZE@ bytes: allocated by new, handed to free */
/* EXPECT: |  allocated at mismatch_new_free.cc:6 (main) */
/* EXPECT: |  freed at     mismatch_new_free.cc:7 (main) */
/* MUTE: mismatch */
