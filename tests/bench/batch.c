/*
 * Batches of 100 000 blocks of mixed sizes, freed in the order MODE: fifo, as allocated; lifo, the last first; stride,
 * every 97th, then the next ones, so that neighbours are freed far apart in time.
 */
#include "bench.h"

enum { COUNT = 100000, BATCHES = 100, STRIDE = 97 };

static void *work(void *arg)
{
    worker_t *worker = arg;
    const char *mode = worker->bench->mode;
    void **blocks = must(calloc(COUNT, sizeof *blocks));
    uint64_t batches = scaled(worker->bench, BATCHES);
    for (uint64_t batch = 0; batch < batches; batch++) {
        for (int i = 0; i < COUNT; i++) blocks[i] = stamped(some_size(&worker->seed, 10));
        if (mode[0] == 'f') {
            for (int i = 0; i < COUNT; i++) worker->check += free_stamped(blocks[i]);
        } else if (mode[0] == 'l') {
            for (int i = COUNT - 1; i >= 0; i--) worker->check += free_stamped(blocks[i]);
        } else {
            for (int first = 0; first < STRIDE; first++) {
                for (int i = first; i < COUNT; i += STRIDE) worker->check += free_stamped(blocks[i]);
            }
        }
        worker->ops += COUNT;
    }
    free(blocks);
    return NULL;
}

int main(int argc, char **argv)
{
    bench_t bench = bench_begin(argc, argv, 1, "fifo");
    worker_t sum = run_workers(&bench, work, NULL, bench.threads);
    return bench_end(&bench, sum.ops, sum.check);
}
