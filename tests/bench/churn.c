/*
 * A server's churn: each lane is a thread with 1000 live blocks that replaces them at random; after a while the thread
 * ends and a new one takes over its blocks, so that most blocks are freed by another thread than allocated them.
 */
#include "bench.h"

enum { LIVE = 1000, ROUNDS = 300, REPLACED = 20000 };

typedef struct lane {
    void *blocks[LIVE];
    uint64_t seed, ops;
} lane_t;

static void *serve(void *arg)
{
    lane_t *lane = arg;
    for (int i = 0; i < REPLACED; i++) {
        uint64_t r = next_random(&lane->seed);
        void **place = &lane->blocks[r % LIVE];
        if (*place != NULL) free_stamped(*place);
        *place = stamped(16 + (size_t)(r >> 16) % 496);
    }
    lane->ops += REPLACED;
    return NULL;
}

static void *run_lane(void *arg)
{
    worker_t *worker = arg;
    lane_t *lane = must(calloc(1, sizeof *lane));
    lane->seed = worker->seed;
    uint64_t rounds = scaled(worker->bench, ROUNDS);
    for (uint64_t round = 0; round < rounds; round++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, serve, lane) != 0) die("no thread");
        pthread_join(thread, NULL);
    }
    for (int i = 0; i < LIVE; i++) {
        if (lane->blocks[i] != NULL) worker->check += free_stamped(lane->blocks[i]);
    }
    worker->ops = lane->ops;
    free(lane);
    return NULL;
}

int main(int argc, char **argv)
{
    bench_t bench = bench_begin(argc, argv, 4, "");
    worker_t sum = run_workers(&bench, run_lane, NULL, bench.threads);
    return bench_end(&bench, sum.ops, sum.check);
}
