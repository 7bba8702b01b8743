/*
 * One operation of an allocator, in nanoseconds: MODE names the operation, the table at the end lists them. Thread CPU
 * time, the minimum over repeats of a stretch that is long against the clock's own cost.
 *
 *     micro lifo64        prints `result lifo64 5.1`
 *     micro steps:lifo64  32 times the operation between two marks, for tests/instr/count.c
 */
#include "bench.h"

#include <signal.h>
#include <sys/syscall.h>

enum { LIVE = 4096, MILLION = 1000000, TABLE = 1 << 16 };

static void *live[LIVE];
static void *many[MILLION];
static uint32_t order[MILLION];
static uint16_t sizes[TABLE], places[TABLE];

static void lifo(uint64_t count, size_t size)
{
    for (uint64_t i = 0; i < count; i++) {
        void *block = malloc(size);
        keep(block);
        free(block);
    }
}

static void lifo_touch(uint64_t count, size_t size)
{
    for (uint64_t i = 0; i < count; i++) {
        char *block = malloc(size);
        *(volatile char *)block = 1;
        free(block);
    }
}

static void aligned(uint64_t count, size_t size)
{
    for (uint64_t i = 0; i < count; i++) {
        void *block = aligned_alloc(64, size);
        keep(block);
        free(block);
    }
}

/* One operation is free and malloc of one of 4096 live blocks. */
static void mixed(uint64_t count, size_t size)
{
    (void)size;
    for (uint64_t i = 0; i < count; i++) {
        unsigned at = (unsigned)(i % TABLE);
        void **place = &live[places[at]];
        free(*place);
        *place = malloc(sizes[at]);
    }
}

/* One operation is one realloc on the way from 16 bytes to 1 MiB. After each step another small block is taken, as programs
 * do, so that a block which happens to lie last in the heap does not grow for nothing. */
static void growing(uint64_t count, size_t size)
{
    void *small[64];
    int taken = 0;
    void *block = NULL;
    size_t now = size;
    for (uint64_t i = 0; i < count; i++) {
        char *next = must(realloc(block, now));
        *(volatile char *)(next + now - 1) = 1;
        block = next;
        small[taken++] = malloc(48);
        if (now == (size_t)1 << 20) {
            free(block);
            while (taken > 0) free(small[--taken]);
            block = NULL;
            now = size;
        } else {
            now += now / 2;
            if (now > (size_t)1 << 20) now = (size_t)1 << 20;
        }
    }
    free(block);
    while (taken > 0) free(small[--taken]);
}

static void fill_live(size_t size)
{
    for (int i = 0; i < LIVE / 4; i++) live[i] = must(malloc(size));
    /* Holes: a page has both live and free blocks. */
    for (int i = 0; i < LIVE / 4; i += 7) {
        free(live[i]);
        live[i] = NULL;
    }
}

static void fill_mixed(size_t size)
{
    (void)size;
    uint64_t seed = seed_of(1);
    for (int i = 0; i < TABLE; i++) {
        sizes[i] = (uint16_t)(16 + next_random(&seed) % 240);
        places[i] = (uint16_t)(next_random(&seed) % LIVE);
    }
    for (int i = 0; i < LIVE; i++) live[i] = must(malloc(sizes[i]));
}

static void empty_live(void)
{
    for (int i = 0; i < LIVE; i++) free(live[i]);
}

typedef struct operation {
    const char *name;
    void (*run)(uint64_t count, size_t size);
    size_t size;
    uint64_t count; /* of one stretch */
    int repeats;
    void (*prepare)(size_t size);
} operation_t;

static const operation_t operations[] = {
    {"lifo64", lifo, 64, 200000, 100, fill_live},
    {"empties64", lifo, 64, 200000, 100, NULL},
    {"mixed", mixed, 0, 200000, 60, fill_mixed},
    {"pair64k", lifo, 64 << 10, 20000, 40, NULL},
    {"pair64k_touch", lifo_touch, 64 << 10, 20000, 40, NULL},
    {"pair1m", lifo, 1 << 20, 5000, 40, NULL},
    {"pair1m_touch", lifo_touch, 1 << 20, 5000, 40, NULL},
    {"pair16m", lifo, 16 << 20, 1000, 40, NULL},
    {"pair16m_touch", lifo_touch, 16 << 20, 1000, 40, NULL},
    {"realloc", growing, 16, 2900, 40, NULL},
    {"aligned", aligned, 256, 200000, 60, fill_live},
};

static double best_ns(const operation_t *operation, const bench_t *bench)
{
    uint64_t best = UINT64_MAX;
    uint64_t repeats = scaled(bench, (uint64_t)operation->repeats);
    operation->run(operation->count / 4 + 1, operation->size);
    for (uint64_t i = 0; i < repeats; i++) {
        uint64_t from = thread_ns();
        operation->run(operation->count, operation->size);
        uint64_t took = thread_ns() - from;
        if (took < best) best = took;
    }
    return (double)best / (double)operation->count;
}

static void million(const bench_t *bench)
{
    uint64_t seed = seed_of(2), best_alloc = UINT64_MAX, best_free = UINT64_MAX;
    for (uint32_t i = 0; i < MILLION; i++) order[i] = i;
    for (uint32_t i = MILLION - 1; i > 0; i--) {
        uint32_t other = (uint32_t)(next_random(&seed) % (i + 1)), kept = order[i];
        order[i] = order[other];
        order[other] = kept;
    }
    memset(many, 1, sizeof many);
    uint64_t repeats = scaled(bench, 6);
    for (uint64_t repeat = 0; repeat < repeats; repeat++) {
        uint64_t from = thread_ns();
        for (int i = 0; i < MILLION; i++) many[i] = malloc(64);
        uint64_t middle = thread_ns();
        for (int i = 0; i < MILLION; i++) free(many[order[i]]);
        uint64_t end = thread_ns();
        if (middle - from < best_alloc) best_alloc = middle - from;
        if (end - middle < best_free) best_free = end - middle;
    }
    result("million_alloc", (double)best_alloc / MILLION);
    result("million_free", (double)best_free / MILLION);
}

static void mark(void)
{
    syscall(SYS_kill, getpid(), SIGUSR1);
}

int main(int argc, char **argv)
{
    bench_t bench = bench_begin(argc, argv, 1, "lifo64");
    if (strcmp(bench.mode, "million") == 0) {
        million(&bench);
        return bench_end(&bench, MILLION, 0);
    }
    bool steps = strncmp(bench.mode, "steps:", 6) == 0;
    const char *name = steps ? bench.mode + 6 : bench.mode;
    for (size_t i = 0; i < sizeof operations / sizeof *operations; i++) {
        const operation_t *operation = &operations[i];
        if (strcmp(operation->name, name) != 0) continue;
        if (operation->prepare != NULL) operation->prepare(operation->size);
        if (steps) {
            /* Warm: what happens once in many calls, and more often in a young process, is not what is counted. */
            operation->run(100000, operation->size);
            mark();
            operation->run(32, operation->size);
            mark();
            return 0;
        }
        result(name, best_ns(operation, &bench));
        empty_live();
        return bench_end(&bench, operation->count, 0);
    }
    die("no such operation");
    return 1;
}
