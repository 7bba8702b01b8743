/* Right, with two threads that fill, exchange and free neighbouring blocks of one size: nothing is to be said. */
#include "places.h"

enum { SLOTS = 64, STEPS = 300000 };
static void *_Atomic slots[SLOTS];

static void *work(void *arg) {
    unsigned state = (unsigned)(uintptr_t)arg;
    for (int i = 0; i < STEPS; i++) {
        state = state * 1664525u + 1013904223u;
        char *block = ak_alloc(48);
        memset(block, (int)state | 1, 48);
        ak_free(__atomic_exchange_n((void **)&slots[state >> 26], block, __ATOMIC_ACQ_REL));
    }
    return NULL;
}

int main(void) {
    pthread_t threads[2];
    for (uintptr_t i = 0; i < 2; i++) REQUIRE(pthread_create(&threads[i], NULL, work, (void *)(i + 1)) == 0);
    for (int i = 0; i < 2; i++) REQUIRE(pthread_join(threads[i], NULL) == 0);
    for (int i = 0; i < SLOTS; i++) ak_free(slots[i]);
    return ak_fault_count() == 0 && ak_check() == 0 ? 0 : 1;
}

/* NOTHING */
/* ENV ALLOKIT_QUARANTINE=0 */
