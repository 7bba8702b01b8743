/* malloc, then delete. */
#include "guard.h"
#include <new>

int main() {
    void *p = hidden(malloc(SIZE));
    ::operator delete(p);
    return 0;
}

/* EXPECT: allokit: mismatch at 0xADDR, a block of @SIZE@ bytes: allocated by malloc, handed to delete */
/* EXPECT: |  allocated at mismatch_malloc_delete.cc:6 (main) */
/* EXPECT: |  freed at     mismatch_malloc_delete.cc:7 (main) */
/* MUTE: mismatch */
