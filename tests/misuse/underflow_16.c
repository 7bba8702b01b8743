/* Writes 16 bytes in front of a block. */
#include "misuse.h"

int main(void) {
    char *p = (char *)ak_alloc(40);
    char *front = (char *)hidden(p - 16);
    for (int i = 0; i < 16; i++) front[i] ^= 0x5a;
    ak_free(hidden(p));
    return finish(1);
}

/* FAULT */
/* EXPECT-ERR: allokit: block at 0xADDR is damaged: its header was overwritten */
/* EXPECT-ERR: |  freed at     underflow_16.c:8 (main) */
