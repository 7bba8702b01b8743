/* Asks for the usable size of a freed block. */
#include "misuse.h"

int main(void) {
    char *p = (char *)ak_alloc(24);
    ak_free(p);
    if (ak_usable_size(hidden(p)) != 0) return 7;
    return finish(1);
}

/* FAULT */
/* EXPECT-ERR: allokit: usable size of 0xADDR, a block of 24 bytes that is already freed */
/* EXPECT-ERR: |  allocated at usable_size_freed.c:5 (main) */
/* EXPECT-ERR: |  freed at     usable_size_freed.c:6 (main) */
/* EXPECT-ERR: |  asked at     usable_size_freed.c:7 (main) */
