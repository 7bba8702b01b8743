/*
 * Growing vectors: 200 of them are appended to at random, doubling or growing by half, and dropped at a random length.
 */
#include "bench.h"

enum { VECTORS = 200, PUSHES = 100000000, RUN = 24 };

typedef struct vector {
    uint64_t *items;
    size_t count, room, end;
} vector_t;

static void *work(void *arg)
{
    worker_t *worker = arg;
    vector_t *vectors = must(calloc(VECTORS, sizeof *vectors));
    uint64_t pushes = scaled(worker->bench, PUSHES);
    for (uint64_t done = 0; done < pushes; done += RUN) {
        uint64_t r = next_random(&worker->seed);
        vector_t *vector = &vectors[r % VECTORS];
        if (vector->end == 0) vector->end = some_size(&worker->seed, 17);
        for (int i = 0; i < RUN; i++) {
            if (vector->count == vector->room) {
                vector->room = vector->room == 0 ? 4 : vector->room + (r >> 40 & 1 ? vector->room : vector->room / 2);
                vector->items = must(realloc(vector->items, vector->room * sizeof *vector->items));
                worker->ops++;
            }
            vector->items[vector->count] = vector->count ^ vector->end;
            vector->count++;
        }
        if (vector->count >= vector->end) {
            for (size_t i = 0; i < vector->count; i += 61) {
                if (vector->items[i] != (i ^ vector->end)) die("a vector lost data");
            }
            worker->check += vector->count;
            free(vector->items);
            *vector = (vector_t){0};
        }
    }
    for (int i = 0; i < VECTORS; i++) free(vectors[i].items);
    free(vectors);
    return NULL;
}

int main(int argc, char **argv)
{
    bench_t bench = bench_begin(argc, argv, 1, "");
    worker_t sum = run_workers(&bench, work, NULL, bench.threads);
    return bench_end(&bench, sum.ops, sum.check);
}
