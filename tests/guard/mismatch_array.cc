/* new[], then delete. */
#include "guard.h"
#include <new>

int main() {
    void *p = hidden(::operator new[](SIZE));
    ::operator delete(p);
    return 0;
}

/* EXPECT: allokit: mismatch at 0xADDR, a block of @SIZE@ bytes: allocated by new[], handed to delete */
/* EXPECT: |  allocated at mismatch_array.cc:6 (main) */
/* EXPECT: |  freed at     mismatch_array.cc:7 (main) */
/* MUTE: mismatch */
