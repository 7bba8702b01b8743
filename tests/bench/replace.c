/*
 * Random replacement: of 60 000 live blocks of 16 bytes to 32 KiB, small ones most, one after the other is freed and
 * another size allocated; now and then one is resized.
 */
#include "bench.h"

enum { LIVE = 60000, STEPS = 9000000 };

static void *work(void *arg)
{
    worker_t *worker = arg;
    void **blocks = must(calloc(LIVE, sizeof *blocks));
    uint64_t steps = scaled(worker->bench, STEPS);
    for (uint64_t i = 0; i < steps; i++) {
        uint64_t r = next_random(&worker->seed);
        void **place = &blocks[r % LIVE];
        size_t size = some_size(&worker->seed, 15);
        if (*place != NULL && (r >> 32) % 16 == 0) {
            size_t old = stamp_of(*place);
            unsigned char *block = must(realloc(*place, size));
            size_t same = old < size ? old : size;
            if (stamp_of(block) != old || (same == old && block[old - 1] != (unsigned char)old)) die("realloc lost data");
            uint64_t mark = size ^ UINT64_C(0xA110C0DE00000000);
            memcpy(block, &mark, sizeof mark);
            block[size - 1] = (unsigned char)size;
            *place = block;
        } else {
            if (*place != NULL) worker->check += free_stamped(*place);
            *place = stamped(size);
        }
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
