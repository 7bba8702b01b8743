/*
 * Large blocks: of 24 live ones of 32 KiB to 4 MiB one after the other is replaced; the first 16 pages of each are written.
 */
#include "bench.h"

enum { LIVE = 24, STEPS = 1600000 };

static void *work(void *arg)
{
    worker_t *worker = arg;
    void *blocks[LIVE] = {0};
    uint64_t steps = scaled(worker->bench, STEPS);
    for (uint64_t i = 0; i < steps; i++) {
        uint64_t r = next_random(&worker->seed);
        void **place = &blocks[r % LIVE];
        if (*place != NULL) worker->check += free_stamped(*place);
        size_t size = some_size(&worker->seed, 11) << 11;
        unsigned char *block = stamped(size);
        for (size_t at = 4096; at + 8 < size && at < 16 * 4096; at += 4096) block[at] = 1;
        *place = block;
    }
    for (int i = 0; i < LIVE; i++) {
        if (blocks[i] != NULL) worker->check += free_stamped(blocks[i]);
    }
    worker->ops = steps;
    return NULL;
}

int main(int argc, char **argv)
{
    bench_t bench = bench_begin(argc, argv, 1, "");
    worker_t sum = run_workers(&bench, work, NULL, bench.threads);
    return bench_end(&bench, sum.ops, sum.check);
}
