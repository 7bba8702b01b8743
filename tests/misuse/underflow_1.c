/* Writes 1 byte in front of a block. */
#include "misuse.h"

int main(void) {
    char *p = (char *)ak_alloc(40);
    char *front = (char *)hidden(p - 1);
    for (int i = 0; i < 1; i++) front[i] ^= 0x5a;
    ak_free(hidden(p));
    return finish(1);
}

/* FAULT */
/* EXPECT-ERR: allokit: block at 0xADDR is damaged: its header was overwritten */
/* EXPECT-ERR: |  freed at     underflow_1.c:8 (main) */
