/*
 * Allocated here, freed there: one thread allocates batches of 64-byte blocks, another frees them, in turns, so that each
 * side's thread CPU time is its own. Nanoseconds of one malloc and of one free, the minimum over stretches of 20 batches.
 */
#include "bench.h"

enum { BATCH = 4000, STRETCH = 20 };

static void *blocks[BATCH];
static pthread_barrier_t full, empty;
static uint64_t rounds, free_ns, best_free = UINT64_MAX;

static void *freer(void *arg)
{
    (void)arg;
    for (uint64_t round = 0; round < rounds; round++) {
        pthread_barrier_wait(&full);
        uint64_t from = thread_ns();
        for (int i = 0; i < BATCH; i++) free(blocks[i]);
        free_ns += thread_ns() - from;
        if ((round + 1) % STRETCH == 0) {
            if (free_ns < best_free) best_free = free_ns;
            free_ns = 0;
        }
        pthread_barrier_wait(&empty);
    }
    return NULL;
}

int main(int argc, char **argv)
{
    bench_t bench = bench_begin(argc, argv, 2, "");
    rounds = scaled(&bench, 60) * STRETCH;
    pthread_barrier_init(&full, NULL, 2);
    pthread_barrier_init(&empty, NULL, 2);
    pthread_t other;
    if (pthread_create(&other, NULL, freer, NULL) != 0) die("no thread");
    uint64_t alloc_ns = 0, best_alloc = UINT64_MAX;
    for (uint64_t round = 0; round < rounds; round++) {
        uint64_t from = thread_ns();
        for (int i = 0; i < BATCH; i++) blocks[i] = malloc(64);
        alloc_ns += thread_ns() - from;
        if ((round + 1) % STRETCH == 0) {
            if (alloc_ns < best_alloc) best_alloc = alloc_ns;
            alloc_ns = 0;
        }
        pthread_barrier_wait(&full);
        pthread_barrier_wait(&empty);
    }
    pthread_join(other, NULL);
    result("remote_alloc", (double)best_alloc / (BATCH * STRETCH));
    result("remote_free", (double)best_free / (BATCH * STRETCH));
    return bench_end(&bench, rounds * BATCH, 0);
}
