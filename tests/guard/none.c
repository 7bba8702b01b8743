/* A right program: every size near SIZE, resized and freed in another order, with copies to the last byte. */
#include "guard.h"

int main(void) {
    enum { COUNT = 60 };
    char *blocks[COUNT];
    for (int round = 0; round < 20; round++) {
        for (size_t i = 0; i < COUNT; i++) {
            size_t size = SIZE - 8 + i;
            blocks[i] = (char *)(i % 3 == 0 ? calloc(1, size) : malloc(size));
            REQUIRE(blocks[i] != NULL || size == 0);
            memset(blocks[i], (int)i, number(size));
        }
        for (size_t i = 0; i < COUNT; i += 2) {
            blocks[i] = (char *)realloc(blocks[i], SIZE + i * 3);
            memset(blocks[i], (int)i, number(SIZE + i * 3));
        }
        for (size_t i = 1; i < COUNT; i += 2) memcpy(blocks[i], blocks[i - 1], number(SIZE - 8 + i));
        for (size_t i = 0; i < COUNT; i++) free(blocks[i * 7 % COUNT]);
    }
    void *p = NULL;
    REQUIRE(posix_memalign(&p, 4096, SIZE) == 0 && (size_t)p % 4096 == 0);
    memset(p, 1, number(SIZE));
    free(p);
    return 0;
}

/* NOTHING */
