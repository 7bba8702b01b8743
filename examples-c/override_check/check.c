/*
 * override_check - a test of alloc_override.h, not an example: this file, C and C++ alike, is compiled behind
 * `-include alloc_override.h` with and without AK_TRACK, and runs with ALLOKIT_TRACK=sites. Every way to allocate must be
 * seen by Allokit: the counters move by one block each, and no free is a wrong one.
 */
#if !defined(_GNU_SOURCE)
#define _GNU_SOURCE /* as a source does that knows nothing of the header: it must still work */
#endif

#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>

#if !defined(__USE_GNU)
#error "the source's own feature macro was too late"
#endif

#include "alloc.h"

#if defined(__cplusplus)
#define STD std::
#else
#define STD
#endif

static int failures;

#define EXPECT(condition) \
    ((condition) ? (void)0 : (fprintf(stderr, "override: line %d: not so: %s\n", __LINE__, #condition), (void)failures++))

static uint64_t taken(void) {
    ak_stats_t stats;
    memset(&stats, 0, sizeof stats);
    stats.struct_size = sizeof stats;
    if (!ak_stats_get(&stats) || (stats.known & AK_KNOWN_ALLOC_COUNT) == 0) {
        fprintf(stderr, "override: the counters are unknown; run with ALLOKIT_TRACK=sites\n");
        exit(EXIT_FAILURE);
    }
    return stats.alloc_count;
}

/* After an allocation by `what`: one block more than before, aligned, of this library. */
static uint64_t last;
static void one_more(const char *what, void *block, size_t size, size_t alignment) {
    uint64_t now = taken();
    if (now != last + 1 || block == NULL || (uintptr_t)block % alignment != 0 || ak_usable_size(block) < size) {
        fprintf(stderr, "override: %s: %d blocks, pointer %p\n", what, (int)(now - last), block);
        failures++;
    }
    if (block != NULL) memset(block, 0x5a, size);
    last = now;
}

/* Tables of functions, as Lua's and SQLite's users write them; constant, so that the compiler sees through them. */
struct hooks {
    void *(*malloc)(size_t);
    void *(*calloc)(size_t, size_t);
    void *(*realloc)(void *, size_t);
    void (*release)(void *);
};
static const struct hooks hooks = {malloc, calloc, realloc, free};

/* Members of these names, called through: only without the macros. */
#if !defined(AK_TRACK) || defined(AK_OVERRIDE_NO_SITES)
struct object {
    int freed;
    void (*free)(struct object *self);
};
static void object_free(struct object *self) { self->freed = 1; }
#endif

#if !defined(__cplusplus)
__attribute__((malloc)) static void *attributed(size_t size) { return malloc(size); }
#else
static void *attributed(size_t size) { return ::malloc(size); }
#endif

int main(void) {
    volatile size_t n = 100; /* the compiler must not know the sizes, except where it shall */
    void *volatile nothing = NULL;
    uint64_t faults = ak_fault_count();
    last = taken();

    void *p = STD malloc(n);
    one_more("malloc", p, n, 16);
    p = STD realloc(p, n * 50);
    one_more("realloc", p, n * 50, 16);
    EXPECT(malloc_usable_size(p) >= n * 50);
    STD free(p);

    p = calloc(n, 3);
    EXPECT(p == NULL || ((char *)p)[299] == 0);
    one_more("calloc", p, 300, 16);
    p = realloc(p, 0);
    EXPECT(p == NULL);
    EXPECT(taken() == last); /* realloc to 0 frees, and allocates nothing */

    p = realloc(NULL, n); /* compilers make this malloc(n) */
    one_more("realloc(NULL)", p, n, 16);
    free(p);
    p = realloc(nothing, n);
    one_more("realloc of a NULL", p, n, 16);
    free(p);
    p = malloc(100); /* and this calloc(100, 1) */
    if (p != NULL) memset(p, 0, 100);
    one_more("malloc and memset", p, n, 16);
    (free)(p);
    p = (malloc)(n);
    one_more("(malloc)", p, n, 16);
    free(p);

    p = (hooks.calloc)(1, n);
    one_more("calloc by pointer", p, n, 16);
    hooks.release(p);
    p = (hooks.realloc)(NULL, n);
    one_more("realloc by pointer", p, n, 16);
    hooks.release(p);
    p = (hooks.malloc)(100);
    if (p != NULL) memset(p, 0, 100);
    one_more("malloc by pointer", p, n, 16);
    hooks.release(p);

    p = reallocarray(NULL, n, 7);
    one_more("reallocarray", p, 700, 16);
    free(p);
    p = reallocarray(NULL, (size_t)-1 / 2, n);
    EXPECT(p == NULL);

    char *s = strdup("a string");
    EXPECT(s != NULL && strcmp(s, "a string") == 0);
    one_more("strdup", s, 9, 16);
    free(s);
    s = strndup("a string", 3);
    EXPECT(s != NULL && strcmp(s, "a s") == 0);
    one_more("strndup", s, 4, 16);
    free(s);
    wchar_t *w = wcsdup(L"wide");
    EXPECT(w != NULL && wcscmp(w, L"wide") == 0);
    one_more("wcsdup", w, 5 * sizeof(wchar_t), 16);
    free(w);

    p = aligned_alloc(256, n);
    one_more("aligned_alloc", p, n, 256);
    free(p);
    p = memalign(512, n);
    one_more("memalign", p, n, 512);
    free(p);
    p = valloc(n);
    one_more("valloc", p, n, 4096);
    free(p);
    p = pvalloc(n);
    one_more("pvalloc", p, 4096, 4096);
    free(p);
    p = NULL;
    EXPECT(posix_memalign(&p, 1024, n) == 0);
    one_more("posix_memalign", p, n, 1024);
    free(p);
    EXPECT(posix_memalign(&p, 24, n) != 0);

#if defined(__cplusplus) && __cplusplus >= 201703L
    p = std::aligned_alloc(64, n);
    one_more("std::aligned_alloc", p, n, 64);
    std::free(p);
#endif

    p = attributed(n);
    one_more("a function of attribute malloc", p, n, 16);
    free(p);

#if !defined(AK_TRACK) || defined(AK_OVERRIDE_NO_SITES)
    struct object object = {0, object_free};
    object.free(&object);
    EXPECT(object.freed);
#endif

    /* What libc allocates goes back to libc. */
    s = NULL;
    EXPECT(asprintf(&s, "%d", 42) == 2);
    ak_libc_free(s);
    EXPECT(taken() == last);

    /* The one leak: under AK_TRACK the report must name the line of the malloc below. */
    static void *volatile leaked; /* seen from outside, or the compiler may leave out malloc and free together */
    leaked = malloc(12345);
    fprintf(stderr, "the leak is at check.c:%d\n", __LINE__ - 1);
    size_t live = ak_leaks_print();
    EXPECT(live == 1);
    free(leaked);

    EXPECT(ak_fault_count() == faults);
    if (failures != 0) fprintf(stderr, "override: %d failures\n", failures);
    return failures == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
