/* Looks for what was in freed blocks in new ones. */
#include "guard.h"

int main(void) {
    enum { COUNT = 200 };
    static char *blocks[COUNT];
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < COUNT; i++) {
            blocks[i] = hidden(malloc(SIZE));
            for (size_t j = 0; j < SIZE; j++) REQUIRE(blocks[i][j] != 'S');
            memset(blocks[i], 'S', SIZE);
        }
        for (int i = 0; i < COUNT; i++) free(blocks[i]);
    }
    return 0;
}

/* NOTHING */
