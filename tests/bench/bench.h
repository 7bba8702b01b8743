/*
 * What every benchmark program here shares: arguments, clocks, threads, random numbers, and the lines that `cargo xtask
 * bench` reads. A program uses plain malloc and free; which allocator serves them is decided by LD_PRELOAD, so that all
 * are measured in the same binary.
 *
 *     program [-t THREADS] [-s SCALE] [MODE]     SCALE in per cent of the full work
 *
 * Lines on stdout, in any order:
 *     result NAME NUMBER          a figure of the program's own
 *     check HEX                   must be the same for every allocator
 *     served FILE                 the object whose malloc, free and so on were called; `mixed` when they lie in several
 */
#ifndef ALLOKIT_BENCH_H
#define ALLOKIT_BENCH_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dlfcn.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

typedef struct bench {
    int threads;
    double scale; /* 1 is the full work */
    const char *mode;
    uint64_t started;
} bench_t;

/* One thread of a program, and what it did. */
typedef struct worker {
    const bench_t *bench;
    void *shared;
    int index;
    uint64_t seed;
    uint64_t ops;   /* allocations, as a rule */
    uint64_t check; /* the same in every run */
    pthread_t thread;
} worker_t;

static inline void die(const char *what)
{
    fprintf(stderr, "bench: %s\n", what);
    exit(1);
}

/* ---- clocks ---- */

static inline uint64_t clock_of(clockid_t id)
{
    struct timespec now;
    clock_gettime(id, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static inline uint64_t thread_ns(void) { return clock_of(CLOCK_THREAD_CPUTIME_ID); }
static inline uint64_t wall_ns(void) { return clock_of(CLOCK_MONOTONIC); }

static inline void sleep_ms(long ms)
{
    struct timespec time = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    nanosleep(&time, NULL);
}

/* ---- random numbers: the same in every run ---- */

static inline uint64_t next_random(uint64_t *state)
{
    uint64_t x = *state;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    *state = x;
    return x * UINT64_C(0x2545F4914F6CDD1D) >> 16;
}

static inline uint64_t seed_of(int index) { return (uint64_t)(index + 1) * UINT64_C(0x9E3779B97F4A7C15); }

/* Sizes as programs ask for them: half of them below 64 bytes, fewer the larger, up to 2^top. */
static inline size_t some_size(uint64_t *state, int top)
{
    uint64_t r = next_random(state);
    int log = 4;
    while (log < top - 1 && (r & 1) != 0) {
        r >>= 1;
        log++;
    }
    r = next_random(state);
    return ((size_t)1 << log) + (size_t)(r & (((uint64_t)1 << log) - 1));
}

/* ---- blocks ---- */

/* Keeps the compiler from seeing that a block is not used. */
static inline void keep(const void *block) { __asm__ volatile("" : : "r"(block) : "memory"); }

static inline void *must(void *block)
{
    if (block == NULL) die("no memory");
    return block;
}

/* A block that knows its size at its begin and end, so that two blocks on one place are noticed. Sizes from 16. */
static inline void *stamped(size_t size)
{
    unsigned char *block = must(malloc(size));
    uint64_t mark = size ^ UINT64_C(0xA110C0DE00000000);
    memcpy(block, &mark, sizeof mark);
    block[size - 1] = (unsigned char)size;
    return block;
}

static inline size_t stamp_of(const void *block)
{
    uint64_t mark;
    memcpy(&mark, block, sizeof mark);
    return (size_t)(mark ^ UINT64_C(0xA110C0DE00000000));
}

static inline size_t free_stamped(void *block)
{
    size_t size = stamp_of(block);
    if (size >> 32 != 0 || ((unsigned char *)block)[size - 1] != (unsigned char)size) die("a block was overwritten");
    free(block);
    return size;
}

/* ---- memory of this process ---- */

static inline long status_kib(const char *file, const char *key)
{
    /* Without stdio: its buffers would be part of what is measured. */
    static char text[8192];
    int fd = open(file, O_RDONLY);
    ssize_t length = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (fd >= 0) close(fd);
    if (length < 0) return -1;
    text[length] = 0;
    const char *line = strstr(text, key);
    return line == NULL ? -1 : atol(line + strlen(key));
}

static inline long rss_kib(void) { return status_kib("/proc/self/status", "VmRSS:"); }

/* ---- a program's frame ---- */

static inline void result(const char *name, double number) { printf("result %s %.6g\n", name, number); }

static inline bench_t bench_begin(int argc, char **argv, int threads, const char *mode)
{
    bench_t bench = {.threads = threads, .scale = 1, .mode = mode, .started = 0};
    int option;
    while ((option = getopt(argc, argv, "t:s:")) != -1) {
        if (option == 't') bench.threads = atoi(optarg);
        else if (option == 's') bench.scale = atof(optarg) / 100;
        else die("usage: program [-t THREADS] [-s SCALE] [MODE]");
    }
    if (optind < argc) bench.mode = argv[optind];
    if (bench.threads < 1 || bench.threads > 1024 || !(bench.scale > 0)) die("THREADS is 1 to 1024, SCALE above 0");
    bench.started = wall_ns();
    return bench;
}

static inline uint64_t scaled(const bench_t *bench, uint64_t count)
{
    double much = (double)count * bench->scale;
    return much < 1 ? 1 : (uint64_t)much;
}

/* The object that serves malloc and the rest, by the addresses that a call would go to. */
static inline void print_served(void)
{
    static const char *const names[] = {"malloc", "free", "calloc", "realloc", "aligned_alloc", "posix_memalign"};
    const char *file = NULL;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        Dl_info info;
        void *address = dlsym(RTLD_DEFAULT, names[i]);
        if (address == NULL || dladdr(address, &info) == 0 || info.dli_fname == NULL) die("a function is nowhere");
        if (file == NULL) file = info.dli_fname;
        else if (strcmp(file, info.dli_fname) != 0) file = "mixed";
    }
    printf("served %s\n", file);
}

/* Runs `body` in that many threads at once; the sums of what they did. */
static inline worker_t run_workers(const bench_t *bench, void *(*body)(void *), void *shared, int threads)
{
    worker_t *workers = must(calloc((size_t)threads, sizeof *workers));
    worker_t sum = {.bench = bench, .shared = shared};
    for (int i = 0; i < threads; i++) {
        workers[i] = (worker_t){.bench = bench, .shared = shared, .index = i, .seed = seed_of(i)};
        if (pthread_create(&workers[i].thread, NULL, body, &workers[i]) != 0) die("no thread");
    }
    for (int i = 0; i < threads; i++) {
        pthread_join(workers[i].thread, NULL);
        sum.ops += workers[i].ops;
        sum.check ^= workers[i].check + (uint64_t)i;
    }
    free(workers);
    return sum;
}

/* The figures that every program reports: operations, seconds of wall clock, what is resident after all is freed. */
static inline int bench_end(const bench_t *bench, uint64_t ops, uint64_t check)
{
    double seconds = (double)(wall_ns() - bench->started) / 1e9;
    long left = rss_kib();
    result("ops", (double)ops);
    result("seconds", seconds);
    result("left_kib", (double)left);
    printf("check %" PRIx64 "\n", check);
    print_served();
    return 0;
}

#endif
