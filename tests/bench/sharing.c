/*
 * False sharing: threads write to small blocks of their own. active: each allocates its blocks itself. passive: the first
 * blocks come from the main thread, one after the other, and go to different threads, which free them and allocate their
 * own; an allocator that hands those out again has two threads write to one cache line.
 */
#include "bench.h"

enum { BLOCKS = 160000, WRITES = 2000, SIZE = 16 };

static void *work(void *arg)
{
    worker_t *worker = arg;
    void **first = worker->shared;
    if (first != NULL) free(first[worker->index]);
    uint64_t blocks = scaled(worker->bench, BLOCKS);
    for (uint64_t i = 0; i < blocks; i++) {
        volatile unsigned char *block = must(malloc(SIZE));
        for (int j = 0; j < SIZE; j++) block[j] = (unsigned char)i;
        for (int j = 0; j < WRITES; j++) block[j % 8] = (unsigned char)(block[j % 8] + 1);
        worker->check += block[0];
        free((void *)block);
    }
    worker->ops = blocks;
    return NULL;
}

int main(int argc, char **argv)
{
    bench_t bench = bench_begin(argc, argv, 2, "active");
    void **first = NULL;
    if (bench.mode[0] == 'p') {
        first = must(calloc((size_t)bench.threads, sizeof *first));
        for (int i = 0; i < bench.threads; i++) first[i] = must(malloc(SIZE));
    }
    worker_t sum = run_workers(&bench, work, first, bench.threads);
    free(first);
    return bench_end(&bench, sum.ops, sum.check);
}
