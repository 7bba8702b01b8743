/*
 * Fragmentation over time: 48 MiB stay live while the usual size moves up and down through 20 phases; each phase replaces
 * most blocks in random order. `rss_per_live` is resident memory by live bytes, the mean over the phases' ends.
 */
#include "bench.h"

enum { PHASES = 20, MOST = 1 << 20 };
#define LIVE ((size_t)48 << 20)

static void *blocks[MOST];

int main(int argc, char **argv)
{
    bench_t bench = bench_begin(argc, argv, 1, "");
    uint64_t seed = seed_of(0), ops = 0, check = 0;
    size_t live = 0, count = 0;
    double sum = 0;
    size_t target = (size_t)scaled(&bench, LIVE);
    memset(blocks, 0, sizeof blocks);
    long before = rss_kib();
    for (int phase = 0; phase < PHASES; phase++) {
        /* 32, 48, 72 … bytes to about 4 KiB and back. */
        size_t usual = 32;
        for (int i = 0; i < (phase < PHASES / 2 ? phase : PHASES - phase); i++) usual += usual / 2;
        /* Nine of ten go, in random order. */
        for (size_t gone = count / 10 * 9; gone > 0; gone--) {
            size_t at = (size_t)(next_random(&seed) % count);
            size_t size = free_stamped(blocks[at]);
            live -= size;
            check += size;
            blocks[at] = blocks[--count];
        }
        while (live < target && count < MOST) {
            size_t size = usual / 2 + (size_t)(next_random(&seed) % usual);
            if (size < 16) size = 16;
            void *block = stamped(size);
            /* The whole block is used. */
            for (size_t i = 4096; i + 8 < size; i += 4096) ((char *)block)[i] = 1;
            blocks[count++] = block;
            live += size;
            ops++;
        }
        sum += (double)(rss_kib() - before) * 1024 / (double)live;
    }
    while (count > 0) check += free_stamped(blocks[--count]);
    result("rss_per_live", sum / PHASES);
    return bench_end(&bench, ops, check);
}
