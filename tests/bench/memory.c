/*
 * What a process keeps. MODE:
 *     return       200 MiB of blocks of 16 bytes to 2 KiB, touched, freed; then 2 s in which a little is allocated every
 *                  10 ms; how much of the grown memory went back, per cent
 *     return_large the same with blocks of 1 MiB
 *     idle         4 threads allocate and free 50 MiB each and then sleep; what is still resident a second later, MiB
 *     rest         a small program at rest: resident KiB, and of that what is not backed by a file
 */
#include "bench.h"

#define TOTAL ((size_t)200 << 20)
enum { MOST = 1 << 20 };

static void *blocks[MOST];
static pthread_barrier_t done, leave;

/* Fills `count` bytes with blocks into `into`; how many blocks. */
static size_t fill(void **into, size_t room, size_t bytes, bool large, uint64_t seed)
{
    size_t count = 0;
    for (size_t sum = 0; sum < bytes && count < room;) {
        size_t size = large ? (size_t)1 << 20 : 16 + (size_t)(next_random(&seed) % 2033);
        into[count] = must(malloc(size));
        memset(into[count++], 1, size);
        sum += size;
    }
    return count;
}

static void empty(void **from, size_t count)
{
    for (size_t i = 0; i < count; i++) free(from[i]);
}

/* smaps_rollup counts exactly; the counters of /proc/self/status lag behind by some hundred pages. */
static long exact_kib(const char *key) { return status_kib("/proc/self/smaps_rollup", key); }

static void returned(const char *name, bool large)
{
    /* The array must not count: all of it is resident before. */
    memset(blocks, 1, sizeof blocks);
    free(must(malloc(100)));
    long before = exact_kib("Rss:");
    size_t count = fill(blocks, MOST, TOTAL, large, seed_of(0));
    long peak = exact_kib("Rss:");
    empty(blocks, count);
    long freed = exact_kib("Rss:");
    uint64_t seed = seed_of(1), until = wall_ns() + UINT64_C(2000000000);
    while (wall_ns() < until) {
        void *some[16];
        for (int i = 0; i < 16; i++) some[i] = stamped(16 + (size_t)(next_random(&seed) % 200));
        for (int i = 0; i < 16; i++) free_stamped(some[i]);
        sleep_ms(10);
    }
    double grown = (double)(peak - before);
    result("at_once", 100 * (double)(peak - freed) / grown);
    result(name, 100 * (double)(peak - exact_kib("Rss:")) / grown);
}

static void *idler(void *arg)
{
    worker_t *worker = arg;
    size_t room = MOST / 4;
    void **mine = blocks + room * (size_t)worker->index;
    empty(mine, fill(mine, room, TOTAL / 4, false, worker->seed));
    pthread_barrier_wait(&done);
    pthread_barrier_wait(&leave);
    return NULL;
}

static void idle(void)
{
    memset(blocks, 1, sizeof blocks);
    free(must(malloc(100)));
    long before = exact_kib("Rss:");
    pthread_barrier_init(&done, NULL, 5);
    pthread_barrier_init(&leave, NULL, 5);
    worker_t workers[4];
    for (int i = 0; i < 4; i++) {
        workers[i] = (worker_t){.index = i, .seed = seed_of(i)};
        if (pthread_create(&workers[i].thread, NULL, idler, &workers[i]) != 0) die("no thread");
    }
    pthread_barrier_wait(&done);
    for (int i = 0; i < 100; i++) {
        /* The main thread lives on. */
        free(must(malloc(64)));
        sleep_ms(10);
    }
    result("idle", (double)(exact_kib("Rss:") - before) / 1024);
    pthread_barrier_wait(&leave);
    for (int i = 0; i < 4; i++) pthread_join(workers[i].thread, NULL);
}

static void rest(void)
{
    uint64_t seed = seed_of(3);
    for (int i = 0; i < 100; i++) blocks[i] = stamped(some_size(&seed, 10));
    sleep_ms(50);
    long all = exact_kib("Rss:");
    result("rest", (double)all);
    result("rest_anonymous", (double)exact_kib("Anonymous:"));
    for (int i = 0; i < 100; i++) free_stamped(blocks[i]);
}

int main(int argc, char **argv)
{
    bench_t bench = bench_begin(argc, argv, 1, "return");
    if (strcmp(bench.mode, "return") == 0) returned("return", false);
    else if (strcmp(bench.mode, "return_large") == 0) returned("return_large", true);
    else if (strcmp(bench.mode, "idle") == 0) idle();
    else if (strcmp(bench.mode, "rest") == 0) rest();
    else die("no such mode");
    return bench_end(&bench, 1, 0);
}
