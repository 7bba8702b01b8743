/* A signal handler that interrupts malloc and free frees a block twice; at the tenth signal. */
#include "places.h"

static void *block;
static volatile sig_atomic_t signals;

static void handler(int number) {
    (void)number;
    if (++signals == 10) ak_free(hidden(block));
}

int main(void) {
    block = ak_alloc(24);
    ak_free(block);
    interrupt_with(handler);
    static void *blocks[64];
    for (unsigned i = 0; signals < 12; i++) {
        ak_free(blocks[i % 64]);
        blocks[i % 64] = ak_alloc(i % 3000);
    }
    return ak_fault_count() == 1 ? 0 : 1;
}

/* EXPECT: allokit: double free of 0xADDR, a block that is already freed */
/* EXPECT: |  freed again  signal_in_malloc.c:9 (handler) */
