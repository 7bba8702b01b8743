/*
 * What a heap takes in time, beside ak_alloc and ak_free: the best of 15 runs each, in one thread. Usage: times
 */
#define _GNU_SOURCE
#include <alloc.h>

#include <stdio.h>
#include <string.h>
#include <time.h>

enum { PAIRS = 1000000, MANY = 40000, BLOCKS = 100000, RUNS = 15 };

static void *blocks[BLOCKS];

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static void keep(double *best, double begin, double count) {
    double each = (now() - begin) / count;
    if (*best == 0 || each < *best) *best = each;
}

static void *get(ak_heap_t *heap, size_t size) {
    void *p = heap == NULL ? ak_alloc(size) : ak_heap_alloc(heap, size);
    __asm__ volatile("" : "+r"(p) : : "memory");
    return p;
}

static void give(ak_heap_t *heap, void *p) {
    if (heap == NULL) {
        ak_free(p);
    } else {
        ak_heap_free(heap, p);
    }
}

static void fill(ak_heap_t *heap, size_t count) {
    for (size_t i = 0; i < count; i++) blocks[i] = get(heap, 16 + i % 300);
}

int main(void) {
    static const char *const names[] = {"ak_alloc, ak_free", "a heap", "a heap with a limit", "two limits"};
    ak_heap_opts_t opts;
    memset(&opts, 0, sizeof opts);
    opts.struct_size = sizeof opts;
    for (int kind = 0; kind < 4; kind++) {
        opts.limit = kind < 2 ? 0 : (size_t)1 << 30;
        opts.parent = kind < 3 ? NULL : ak_heap_new(&opts);
        ak_heap_t *heap = kind == 0 ? NULL : ak_heap_new(&opts);
        double pair = 0, other = 0, many = 0;
        for (int run = 0; run < RUNS; run++) {
            double begin = now();
            for (int i = 0; i < PAIRS; i++) give(heap, get(heap, 64));
            keep(&pair, begin, PAIRS);
            begin = now();
            for (int i = 0; i < PAIRS; i++) ak_free(get(heap, 64));
            keep(&other, begin, PAIRS);
            begin = now();
            fill(heap, MANY);
            for (int i = 0; i < MANY; i++) give(heap, blocks[i]);
            keep(&many, begin, MANY);
        }
        printf("%-20s one block of 64 %5.1f ns a pair, given to ak_free %5.1f; 40000 of 16 to 315, first in, first out "
               "%5.1f\n",
               names[kind], pair, other, many);
    }
    double destroy = 0, reset = 0, each = 0, small = 0;
    opts.limit = 0;
    opts.parent = NULL;
    for (int run = 0; run < RUNS; run++) {
        ak_heap_t *heap = ak_heap_new(&opts);
        fill(heap, BLOCKS);
        double begin = now();
        ak_heap_reset(heap);
        keep(&reset, begin, 1e3);
        fill(heap, BLOCKS);
        begin = now();
        ak_heap_destroy(heap);
        keep(&destroy, begin, 1e3);
        fill(NULL, BLOCKS);
        begin = now();
        for (int i = 0; i < BLOCKS; i++) ak_free(blocks[i]);
        keep(&each, begin, 1e3);
        begin = now();
        for (int i = 0; i < 1000; i++) {
            heap = ak_heap_new(&opts);
            for (int j = 0; j < 10; j++) blocks[j] = get(heap, 100);
            ak_heap_destroy(heap);
        }
        keep(&small, begin, 1e3);
    }
    printf("100000 blocks: destroy %.0f us, reset %.0f us, ak_free of each %.0f us; a heap with 10 blocks, made and "
           "destroyed: %.0f ns\n",
           destroy, reset, each, small);
    return 0;
}
