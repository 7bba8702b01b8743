/* No memory is left at all. */
#include "places.h"

int main(void) {
    void *block = ak_alloc(24);
    ak_free(block);
    struct rlimit limit = {1 << 20, 1 << 20};
    REQUIRE(setrlimit(RLIMIT_AS, &limit) == 0);
    for (size_t size = 1 << 20; size >= 16; size /= 2)
        while (ak_alloc(size) != NULL) {
        }
    ak_free(hidden(block));
    return ak_fault_count() == 1 && ak_alloc(16) == NULL ? 0 : 1;
}

/* EXPECT: allokit: double free of 0xADDR, a block of 24 bytes */
/* EXPECT: |  allocated at no_memory.c:5 (main) */
/* EXPECT: |  freed at     no_memory.c:6 (main) */
/* EXPECT: |  freed again  no_memory.c:12 (main) */
