/* A signal handler interrupts ak_check, which holds the lock of all walks over the heap, and makes a wrong free: the report
 * needs that lock, and goes without. */
#include "places.h"

static char *inside;
static volatile sig_atomic_t signals, checking, done;

static void handler(int number) {
    (void)number;
    if (done || !checking || ++signals < 5) return;
    done = 1;
    ak_free(hidden(inside));
}

int main(void) {
    static void *blocks[20000];
    for (unsigned i = 0; i < 20000; i++) blocks[i] = ak_alloc(64);
    inside = (char *)blocks[0] + 16;
    interrupt_with(handler);
    checking = 1;
    while (!done) ak_check();
    return ak_fault_count() == 1 ? 0 : 1;
}

/* EXPECT: allokit: free of 0xADDR, which is no live block of this allocator */
/* EXPECT: |  freed at     signal_in_check.c:12 (handler) */
