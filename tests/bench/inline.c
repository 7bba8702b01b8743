/*
 * What a call costs in a program that is linked statically: the fast path in the caller, the plain function, another
 * allocator's function with and without link-time optimisation. Blocks of 64 bytes, nanoseconds for an allocation and a
 * free, the minimum over repeats. -DHEADER, -DALLOC, -DFREE and -DFREE_SIZED name what is measured; without, libc's.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#ifdef HEADER
#include HEADER
#else
#define ALLOC(size) malloc(size)
#define FREE(block) free(block)
#define FREE_SIZED(block, size) free(block)
#endif

enum { OPS = 2000000, REPEATS = 15, SIZE = 64, ROW = 64, NODES = 1000, PLACES = 1024 };

/* The compiler is to know no more of the block than that there is one. */
#define USE(block) __asm__ volatile("" : "+r"(block))

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

static void pairs(void)
{
    for (int i = 0; i < OPS; i++) {
        void *block = ALLOC(SIZE);
        USE(block);
        FREE(block);
    }
}

static void pairs_sized(void)
{
    for (int i = 0; i < OPS; i++) {
        void *block = ALLOC(SIZE);
        USE(block);
        FREE_SIZED(block, SIZE);
    }
}

static void rows(void)
{
    void *row[ROW];
    for (int i = 0; i < OPS / ROW; i++) {
        for (int k = 0; k < ROW; k++) row[k] = ALLOC(SIZE);
        for (int k = 0; k < ROW; k++) FREE(row[k]);
    }
}

typedef struct node {
    struct node *next;
    char rest[SIZE - sizeof(void *)];
} node_t;

static void lists(void)
{
    for (int i = 0; i < OPS / NODES; i++) {
        node_t *first = NULL;
        for (int k = 0; k < NODES; k++) {
            node_t *node = (node_t *)ALLOC(sizeof(node_t));
            node->next = first;
            first = node;
        }
        while (first != NULL) {
            node_t *node = first;
            first = node->next;
            FREE(node);
        }
    }
}

static void *places[PLACES];

static void places_random(void)
{
    for (int i = 0; i < OPS; i++) {
        uint32_t at = next_random() % PLACES;
        FREE(places[at]);
        places[at] = ALLOC(SIZE);
    }
}

static void places_random_sized(void)
{
    for (int i = 0; i < OPS; i++) {
        uint32_t at = next_random() % PLACES;
        FREE_SIZED(places[at], SIZE);
        places[at] = ALLOC(SIZE);
    }
}

static void measure(const char *name, void (*run)(void))
{
    double best = 1e300;
    for (int i = 0; i < REPEATS; i++) {
        double from = now_ns();
        run();
        double took = (now_ns() - from) / OPS;
        if (took < best) best = took;
    }
    printf("result %s %.3f\n", name, best);
}

int main(void)
{
    for (int i = 0; i < PLACES; i++) places[i] = ALLOC(SIZE);
    measure("lifo", pairs);
    measure("lifo_sized", pairs_sized);
    measure("fifo64", rows);
    measure("list1000", lists);
    measure("random1024", places_random);
    measure("random1024_sized", places_random_sized);
    for (int i = 0; i < PLACES; i++) FREE(places[i]);
    return 0;
}
