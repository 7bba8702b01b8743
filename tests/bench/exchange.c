/*
 * Threads exchange blocks: each makes small groups of blocks, swaps some of them into a table that all share, and frees
 * what it finds there, whoever made it. Ends and begins anew several times with new threads.
 */
#include "bench.h"

#include <stdatomic.h>

enum { PLACES = 4096, GENERATIONS = 20, STEPS = 250000, LOCAL = 64 };

static _Atomic(void *) places[PLACES];

static void *work(void *arg)
{
    worker_t *worker = arg;
    void *local[LOCAL] = {0};
    uint64_t steps = scaled(worker->bench, STEPS);
    for (uint64_t i = 0; i < steps; i++) {
        uint64_t r = next_random(&worker->seed);
        void *block = stamped(some_size(&worker->seed, 13));
        if (r & 1) {
            block = atomic_exchange_explicit(&places[(r >> 8) % PLACES], block, memory_order_acq_rel);
        } else {
            void **mine = &local[(r >> 8) % LOCAL];
            void *old = *mine;
            *mine = block;
            block = old;
        }
        if (block != NULL) free_stamped(block);
    }
    for (int i = 0; i < LOCAL; i++) {
        if (local[i] != NULL) free_stamped(local[i]);
    }
    worker->ops = steps;
    return NULL;
}

int main(int argc, char **argv)
{
    bench_t bench = bench_begin(argc, argv, 2, "");
    uint64_t ops = 0;
    for (int generation = 0; generation < GENERATIONS; generation++) ops += run_workers(&bench, work, NULL, bench.threads).ops;
    for (int i = 0; i < PLACES; i++) {
        void *block = atomic_load(&places[i]);
        if (block != NULL) free_stamped(block);
    }
    return bench_end(&bench, ops, 0);
}
