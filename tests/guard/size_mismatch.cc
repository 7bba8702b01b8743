/* delete with another size. */
#include "guard.h"
#include <new>

int main() {
    void *p = hidden(::operator new(SIZE));
    ::operator delete(p, number(SIZE + 1));
    return 0;
}

/* EXPECT: allokit: free of 0xADDR with size @OVER@, but the block has @SIZE@ bytes */
/* EXPECT: |  allocated at size_mismatch.cc:6 (main) */
/* EXPECT: |  freed at     size_mismatch.cc:7 (main) */
/* MUTE: size */
