/*
 * calloc most of the time: tables and records of 16 bytes to 64 KiB that must be zero, are written all over and freed.
 */
#include "bench.h"

enum { LIVE = 8000, STEPS = 9000000 };

static void *work(void *arg)
{
    worker_t *worker = arg;
    void **blocks = must(calloc(LIVE, sizeof *blocks));
    uint64_t steps = scaled(worker->bench, STEPS);
    for (uint64_t i = 0; i < steps; i++) {
        uint64_t r = next_random(&worker->seed);
        void **place = &blocks[r % LIVE];
        if (*place != NULL) worker->check += free_stamped(*place);
        size_t size = some_size(&worker->seed, 16) & ~(size_t)7;
        unsigned char *block = must(calloc(size / 8, 8));
        if ((block[0] | block[size / 2] | block[size - 1] | block[(size_t)(r >> 20) % size]) != 0) die("calloc is not zero");
        memset(block, 0xA5, size);
        uint64_t mark = size ^ UINT64_C(0xA110C0DE00000000);
        memcpy(block, &mark, sizeof mark);
        block[size - 1] = (unsigned char)size;
        *place = block;
    }
    for (int i = 0; i < LIVE; i++) {
        if (blocks[i] != NULL) worker->check += free_stamped(blocks[i]);
    }
    worker->ops = steps;
    free(blocks);
    return NULL;
}

int main(int argc, char **argv)
{
    bench_t bench = bench_begin(argc, argv, 1, "");
    worker_t sum = run_workers(&bench, work, NULL, bench.threads);
    return bench_end(&bench, sum.ops, sum.check);
}
