/*
 * Threads come and go by the thousand: each allocates 200 blocks, frees half, and leaves the rest to the one that waits.
 */
#include "bench.h"

enum { WAVES = 2000, BLOCKS = 200 };

typedef struct visitor {
    pthread_t thread;
    uint64_t seed;
    void *left[BLOCKS / 2];
} visitor_t;

static void *visit(void *arg)
{
    visitor_t *visitor = arg;
    void *mine[BLOCKS / 2];
    for (int i = 0; i < BLOCKS / 2; i++) {
        mine[i] = stamped(some_size(&visitor->seed, 11));
        visitor->left[i] = stamped(some_size(&visitor->seed, 11));
    }
    for (int i = 0; i < BLOCKS / 2; i++) free_stamped(mine[i]);
    return NULL;
}

int main(int argc, char **argv)
{
    bench_t bench = bench_begin(argc, argv, 4, "");
    uint64_t waves = scaled(&bench, WAVES), check = 0;
    visitor_t *visitors = must(calloc((size_t)bench.threads, sizeof *visitors));
    for (uint64_t wave = 0; wave < waves; wave++) {
        for (int i = 0; i < bench.threads; i++) {
            visitors[i].seed = seed_of((int)wave * 64 + i);
            if (pthread_create(&visitors[i].thread, NULL, visit, &visitors[i]) != 0) die("no thread");
        }
        for (int i = 0; i < bench.threads; i++) {
            pthread_join(visitors[i].thread, NULL);
            for (int j = 0; j < BLOCKS / 2; j++) check += free_stamped(visitors[i].left[j]);
        }
    }
    free(visitors);
    return bench_end(&bench, waves * (uint64_t)bench.threads * BLOCKS, check);
}
