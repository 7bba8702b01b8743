/*
 * Arenas and the like of several libraries through the same loops: one library for each compilation, nanoseconds for an
 * operation, the minimum over repeats. `cargo xtask bench --arenas` compiles and runs it:
 *
 *     -DKIND_ALLOKIT      ours, in the caller (with -DAK_NO_INLINE: called)
 *     -DKIND_APR          pools of the Apache Portable Runtime
 *     -DKIND_TALLOC       talloc's pool
 *     nothing             the least that an arena can do: one buffer, no growth, no limit
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { REPEATS = 15, SIZES = 4096, L1 = 100 };

static size_t sizes[SIZES]; /* 16 to 256 bytes: 4096 of them are 560 KB */

#if defined(KIND_ALLOKIT)
#include "alloc.h"
static ak_arena_t *arena;
static bool begin(void) { return (arena = ak_arena_new(NULL)) != NULL; }
#define ALLOC(size) ak_arena_alloc(arena, (size))
#define ALLOC_ALIGNED(size) ak_arena_alloc_aligned(arena, (size), 64)
#define RESET() ak_arena_reset(arena)
#elif defined(KIND_APR)
#include <apr_general.h>
#include <apr_pools.h>
static apr_pool_t *pool_of_apr;
static bool begin(void) { return apr_initialize() == APR_SUCCESS && apr_pool_create(&pool_of_apr, NULL) == APR_SUCCESS; }
#define ALLOC(size) apr_palloc(pool_of_apr, (size))
#define RESET() apr_pool_clear(pool_of_apr)
#elif defined(KIND_TALLOC)
#include <talloc.h>
static void *pool_of_talloc;
static bool begin(void) { return (pool_of_talloc = talloc_pool(NULL, 2 << 20)) != NULL; }
#define ALLOC(size) talloc_size(pool_of_talloc, (size))
#define RESET() talloc_free_children(pool_of_talloc)
#else
static struct {
    char *next, *end;
} naive;
static char memory[2 << 20];
static bool begin(void) {
    naive.next = memory;
    naive.end = memory + sizeof memory;
    return true;
}
static inline void *naive_alloc(size_t size, size_t align) {
    char *block = naive.next + (-(uintptr_t)naive.next & (align - 1));
    size = (size + 15) & ~(size_t)15;
    if (size > (size_t)(naive.end - block)) return NULL;
    naive.next = block + size;
    return block;
}
#define ALLOC(size) naive_alloc((size), 16)
#define ALLOC_ALIGNED(size) naive_alloc((size), 64)
#define RESET() (naive.next = memory)
#endif

static double now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

static uint32_t state = 12345;

static uint32_t next_random(void) {
    state ^= state << 13;
    state ^= state >> 17;
    state ^= state << 5;
    return state;
}

static void measure(const char *name, double (*run)(void)) {
    double best = 1e300;
    for (int i = 0; i < REPEATS; i++) {
        double took = run();
        if (took < best) best = took;
    }
    printf("result %s %.3f\n", name, best);
}

/* Rounds of `count` allocations and a reset; an int of each block is written. */
#define CYCLES(name, count, allocate)                                                                                  \
    static double name(void) {                                                                                         \
        enum { OPS = 1000000 / (count) * (count) };                                                                    \
        double from = now_ns();                                                                                        \
        for (int done = 0; done < OPS; done += (count)) {                                                              \
            for (int i = 0; i < (count); i++) *(volatile int *)allocate(sizes[i]) = i;                                 \
            RESET();                                                                                                   \
        }                                                                                                              \
        return (now_ns() - from) / OPS;                                                                                \
    }
CYCLES(in_l1, L1, ALLOC)
CYCLES(in_560k, SIZES, ALLOC)
#ifdef ALLOC_ALIGNED
CYCLES(aligned_l1, L1, ALLOC_ALIGNED)
CYCLES(aligned_560k, SIZES, ALLOC_ALIGNED)
#endif

#ifdef KIND_ALLOKIT
#define USE(block) __asm__ volatile("" : "+r"(block) : : "memory")
static ak_region_t *region;
static ak_pool_t *pool;
static ak_stack_t *stack;
enum { LIVE = 1024, LARGE = 100000 };
static void *blocks[LARGE];

static double region_pair(void) {
    enum { OPS = 1000000 };
    double from = now_ns();
    for (int i = 0; i < OPS; i++) {
        void *block = ak_region_alloc(region, sizes[i % SIZES]);
        USE(block);
        ak_region_free(block);
    }
    return (now_ns() - from) / OPS;
}

/* One of `live` blocks, at random, is freed and another allocated in its place. */
static double region_random(int live, int ops) {
    ak_region_reset(region);
    for (int i = 0; i < live; i++) blocks[i] = ak_region_alloc(region, sizes[i % SIZES]);
    double from = now_ns();
    for (int i = 0; i < ops; i++) {
        uint32_t at = next_random() % (uint32_t)live;
        ak_region_free(blocks[at]);
        blocks[at] = ak_region_alloc(region, sizes[i % SIZES]);
    }
    return (now_ns() - from) / ops;
}

static double region_1024(void) { return region_random(LIVE, 500000); }
static double region_100000(void) { return region_random(LARGE, 300000); }

/* Three neighbours too large for the lists of waiting blocks: the free of the middle one merges both sides, and each alloc
 * splits what was merged. Nothing is at hand: the long way, each time. */
static double region_long_way(void) {
    enum { ROUNDS = 100000 };
    ak_region_reset(region);
    double from = now_ns();
    for (int i = 0; i < ROUNDS; i++) {
        void *a = ak_region_alloc(region, 2000), *b = ak_region_alloc(region, 3000), *c = ak_region_alloc(region, 2500);
        ak_region_free(a);
        ak_region_free(c);
        ak_region_free(b);
    }
    return (now_ns() - from) / (ROUNDS * 3.0);
}

static double clock_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

/* The dearest single call of a long random mixture of all sizes, with this many blocks live. The same calls are made again and again,
 * and the least of a call's times counts, which leaves out what the machine did in between. */
static double region_dearest(uint32_t live) {
    enum { CALLS = 20000 };
    static double least[CALLS];
    for (int i = 0; i < CALLS; i++) least[i] = 1e300;
    double nothing = 1e300;
    for (int repeat = 0; repeat < REPEATS; repeat++) {
        ak_region_reset(region);
        state = 777;
        for (uint32_t i = 0; i < live; i++) blocks[i] = ak_region_alloc(region, sizes[i % SIZES]);
        for (int i = 0; i < CALLS; i += 2) {
            uint32_t at = next_random() % live;
            size_t size = next_random() % 8 == 0 ? next_random() % 4000 : sizes[i % SIZES];
            double a = clock_now(), b = clock_now();
            if (b - a < nothing) nothing = b - a;
            ak_region_free(blocks[at]);
            double c = clock_now();
            blocks[at] = ak_region_alloc(region, size);
            double d = clock_now();
            if (c - b < least[i]) least[i] = c - b;
            if (d - c < least[i + 1]) least[i + 1] = d - c;
        }
    }
    double dearest = 0;
    for (int i = 0; i < CALLS; i++)
        if (least[i] > dearest) dearest = least[i];
    return dearest - nothing;
}

static double pool_pair(void) {
    enum { OPS = 2000000 };
    double from = now_ns();
    for (int i = 0; i < OPS; i++) {
        void *object = ak_pool_take(pool);
        USE(object);
        ak_pool_give(pool, object);
    }
    return (now_ns() - from) / OPS;
}

static double pool_rows(void) {
    enum { OPS = 1000000, ROW = 64 };
    void *row[ROW];
    double from = now_ns();
    for (int i = 0; i < OPS / ROW; i++) {
        for (int k = 0; k < ROW; k++) row[k] = ak_pool_take(pool);
        for (int k = 0; k < ROW; k++) ak_pool_give(pool, row[k]);
    }
    return (now_ns() - from) / OPS;
}

static double stack_pair(void) {
    enum { OPS = 1000000 };
    double from = now_ns();
    for (int i = 0; i < OPS; i++) {
        void *block = ak_stack_push(stack, 64);
        USE(block);
        ak_stack_pop(stack, block);
    }
    return (now_ns() - from) / OPS;
}

static int others(void) {
    region = ak_region_new((size_t)64 << 20);
    pool = ak_pool_new(64, NULL);
    stack = ak_stack_new(65536, NULL);
    if (region == NULL || pool == NULL || stack == NULL) return 1;
    measure("region_pair", region_pair);
    measure("region_1024", region_1024);
    measure("region_100000", region_100000);
    measure("region_long_way", region_long_way);
    printf("result region_dearest_1024 %.0f\n", region_dearest(LIVE));
    printf("result region_dearest_100000 %.0f\n", region_dearest(LARGE));
    measure("pool_pair", pool_pair);
    measure("pool_fifo64", pool_rows);
    measure("stack_pair", stack_pair);
    return ak_region_check(region) + ak_pool_check(pool) + ak_stack_check(stack) == 0 ? 0 : 1;
}
#else
static int others(void) { return 0; }
#endif

int main(void) {
    for (int i = 0; i < SIZES; i++) sizes[i] = 16 + next_random() % 241;
    if (!begin()) return 1;
    measure("l1", in_l1);
    measure("560k", in_560k);
#ifdef ALLOC_ALIGNED
    measure("aligned_l1", aligned_l1);
    measure("aligned_560k", aligned_560k);
#endif
    return others();
}
