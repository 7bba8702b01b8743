/*
 * Arenas, regions, pools and stacks: nanoseconds for an operation, the minimum over many short repeats, since what else
 * runs on the machine only ever adds. Sizes are drawn before, the owner is a local variable as in a function that was handed
 * it, and resets are part of the cycles. naive_... is the least that can be done, in the same loops: on a slower machine the
 * ratio to it is what counts. Not one of the programs that
 * `cargo xtask bench` preloads an allocator into: it is linked with Allokit.
 *
 *     cc -O2 -DARENA_BENCH -I include tests/bench/arena.c target/allokit/native/liballokit_native.a -lpthread -ldl
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#ifdef ARENA_BENCH
#include "alloc.h"

enum { REPEATS = 300, OPS = 100000, SIZES = 4096, LIVE = 1024, LARGE = 100000 };

/* The compiler is to know no more of the block than that there is one. */
#define USE(block) __asm__ volatile("" : "+r"(block) : : "memory")

static double now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

static uint32_t state = 12345;

static uint32_t next_random(void)
{
    state ^= state << 13;
    state ^= state >> 17;
    state ^= state << 5;
    return state;
}

static size_t sizes[SIZES]; /* 16 to 256 bytes */
static ak_arena_t *arena;
static ak_region_t *region;
static ak_pool_t *pool;
static ak_stack_t *stack;
static void *blocks[LARGE];

static void measure_times(const char *name, double (*run)(void), int repeats)
{
    double best = 1e300;
    for (int i = 0; i < repeats; i++) {
        double took = run();
        if (took < best) best = took;
    }
    printf("result %s %.3f\n", name, best);
}

static void measure(const char *name, double (*run)(void))
{
    measure_times(name, run, REPEATS);
}

/* Cycles of `count` allocations and a reset; an int of each block is written. */
static double cycles(int count)
{
    ak_arena_t *a = arena;
    int done = 0;
    double from = now_ns();
    for (; done < OPS; done += count) {
        for (int i = 0; i < count; i++) {
            void *block = ak_arena_alloc(a, sizes[i]);
            *(volatile int *)block = i;
        }
        ak_arena_reset(a);
    }
    return (now_ns() - from) / done;
}

/* The least that an arena can do, for comparison: no growth, no limit, one chunk. */
static double naive_cycles(int count)
{
    static char memory[1 << 20];
    static struct {
        char *next, *end;
    } naive;
    int done = 0;
    double from = now_ns();
    for (; done < OPS; done += count) {
        naive.next = memory;
        naive.end = memory + sizeof memory;
        for (int i = 0; i < count; i++) {
            size_t size = (sizes[i] + 15) & ~(size_t)15;
            char *block = naive.next;
            if (size > (size_t)(naive.end - block)) break;
            naive.next = block + size;
            *(volatile int *)(void *)block = i;
        }
    }
    return (now_ns() - from) / done;
}

static double naive_l1(void) { return naive_cycles(100); }
static double naive_560k(void) { return naive_cycles(4096); }
static double arena_l1(void) { return cycles(100); }
static double arena_560k(void) { return cycles(4096); }

static double arena_call(void)
{
    ak_arena_t *a = arena;
    double from = now_ns();
    for (int done = 0; done < OPS; done += 100) {
        for (int i = 0; i < 100; i++) {
            void *block = (ak_arena_alloc)(a, sizes[i]);
            *(volatile int *)block = i;
        }
        ak_arena_reset(a);
    }
    return (now_ns() - from) / OPS;
}

static double arena_aligned(void)
{
    ak_arena_t *a = arena;
    double from = now_ns();
    for (int done = 0; done < OPS; done += 100) {
        for (int i = 0; i < 100; i++) {
            void *block = ak_arena_alloc_aligned(a, sizes[i], 64);
            USE(block);
        }
        ak_arena_reset(a);
    }
    return (now_ns() - from) / OPS;
}

static double mark_rewind(void)
{
    ak_arena_t *a = arena;
    double from = now_ns();
    for (int i = 0; i < OPS; i++) {
        ak_arena_mark_t mark = ak_arena_mark(a);
        void *block = ak_arena_alloc(a, 64);
        USE(block);
        ak_arena_rewind(a, mark);
    }
    return (now_ns() - from) / OPS;
}

static double scratch(void)
{
    double from = now_ns();
    for (int i = 0; i < OPS; i++) {
        ak_scratch_t s = ak_scratch_begin();
        void *block = ak_arena_alloc(s.arena, 64);
        USE(block);
        ak_scratch_end(s);
    }
    return (now_ns() - from) / OPS;
}

static double region_pair(void)
{
    ak_region_t *r = region;
    double from = now_ns();
    for (int i = 0; i < OPS; i++) {
        void *block = ak_region_alloc(r, sizes[i % SIZES]);
        USE(block);
        ak_region_free(block);
    }
    return (now_ns() - from) / OPS;
}

/* One of `live` blocks, at random, is freed and another allocated in its place. Which ones is drawn before. */
static double region_random(int live)
{
    static uint32_t which[OPS];
    static int before;
    ak_region_t *r = region;
    if (before != live) {
        before = live;
        ak_region_reset(r);
        for (int i = 0; i < live; i++) blocks[i] = ak_region_alloc(r, sizes[i % SIZES]);
    }
    for (int i = 0; i < OPS; i++) which[i] = next_random() % (uint32_t)live;
    double from = now_ns();
    for (int i = 0; i < OPS; i++) {
        ak_region_free(blocks[which[i]]);
        blocks[which[i]] = ak_region_alloc(r, sizes[i % SIZES]);
    }
    return (now_ns() - from) / OPS;
}

static double region_1024(void) { return region_random(LIVE); }
static double region_100000(void) { return region_random(LARGE); }

/* The least that a pool can do: a list, and no look at what comes back. */
static double naive_pool(void)
{
    static struct node {
        struct node *next;
        char rest[56];
    } node, *list;
    list = &node;
    double from = now_ns();
    for (int i = 0; i < OPS; i++) {
        struct node *object = list;
        if (object == NULL) break;
        list = object->next;
        USE(object);
        object->next = list;
        list = object;
    }
    return (now_ns() - from) / OPS;
}

static double pool_pair(void)
{
    ak_pool_t *p = pool;
    double from = now_ns();
    for (int i = 0; i < OPS; i++) {
        void *object = ak_pool_take(p);
        USE(object);
        ak_pool_give(p, object);
    }
    return (now_ns() - from) / OPS;
}

static double pool_rows(void)
{
    enum { ROW = 64 };
    ak_pool_t *p = pool;
    void *row[ROW];
    double from = now_ns();
    for (int i = 0; i < OPS / ROW; i++) {
        for (int k = 0; k < ROW; k++) row[k] = ak_pool_take(p);
        for (int k = 0; k < ROW; k++) ak_pool_give(p, row[k]);
    }
    return (now_ns() - from) / OPS;
}

static double stack_pair(void)
{
    ak_stack_t *s = stack;
    double from = now_ns();
    for (int i = 0; i < OPS; i++) {
        void *block = ak_stack_push(s, 64);
        USE(block);
        ak_stack_pop(s, block);
    }
    return (now_ns() - from) / OPS;
}

int main(void)
{
    for (int i = 0; i < SIZES; i++) sizes[i] = 16 + next_random() % 241;
    arena = ak_arena_new(NULL);
    region = ak_region_new((size_t)64 << 20);
    pool = ak_pool_new(64, NULL);
    stack = ak_stack_new(65536, NULL);
    if (arena == NULL || region == NULL || pool == NULL || stack == NULL) return 1;
    measure("naive_l1", naive_l1);
    measure("naive_560k", naive_560k);
    measure("arena_l1", arena_l1);
    measure("arena_560k", arena_560k);
    measure("arena_call", arena_call);
    measure("arena_aligned64", arena_aligned);
    measure("arena_mark_rewind", mark_rewind);
    measure("scratch", scratch);
    measure("region_pair", region_pair);
    measure("region_random1024", region_1024);
    measure_times("region_random100000", region_100000, 40);
    if (ak_region_check(region) != 0) return 1;
    measure("naive_pool", naive_pool);
    measure("pool_pair", pool_pair);
    measure("pool_fifo64", pool_rows);
    measure("stack_pair", stack_pair);
    ak_stack_destroy(stack);
    ak_pool_destroy(pool);
    ak_region_destroy(region);
    ak_arena_destroy(arena);
    return 0;
}
#else
/* Compiled by itself, without the library. */
int main(void) { return 0; }
#endif
