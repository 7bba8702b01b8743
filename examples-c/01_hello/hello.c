/*
 * 01_hello - the smallest program on Allokit: allocate, use, free, and look at the statistics.
 *
 * Run it as it is, then with ALLOKIT_TRACK=sites: the counters of blocks and bytes are known only while tracking is on.
 */
#include "alloc.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct point {
    double x, y;
} point_t;

/* A field of ak_stats_t means something only where its bit in `known` is set: what a backend cannot know is not 0. */
static void print_known(const ak_stats_t *stats, uint64_t bit, const char *name, uint64_t value) {
    if ((stats->known & bit) != 0) {
        printf("%s: %" PRIu64 "\n", name, value);
    } else {
        printf("%s: unknown\n", name);
    }
}

int main(void) {
    printf("allokit %s on the %s backend\n", ak_version(), ak_backend_name());

    /* A library of another binary interface than the header would be a packaging mistake; here is how to see it. */
    if (ak_abi_version() != AK_ABI_VERSION) {
        fprintf(stderr, "hello: alloc.h is of ABI %d, the library of ABI %" PRIu32 "\n", AK_ABI_VERSION, ak_abi_version());
        return EXIT_FAILURE;
    }

    /* The plain calls are malloc's, with firmer rules: 16-byte alignment and a unique pointer for size 0, always. */
    char *greeting = ak_strdup("hello, world");
    void *nothing = ak_alloc(0);

    /* The typed macros count elements, check the product, and zero the memory. */
    point_t *points = AK_ARRAY(point_t, 3);
    if (greeting == NULL || nothing == NULL || points == NULL) {
        fprintf(stderr, "hello: out of memory\n");
        return EXIT_FAILURE;
    }
    point_t *grown = AK_RESIZE(points, point_t, 1000);
    if (grown == NULL) { /* a failed resize leaves the old block as it was */
        fprintf(stderr, "hello: out of memory\n");
        return EXIT_FAILURE;
    }
    points = grown;

    printf("%s\n", greeting);
    printf("points start at (%g, %g); all blocks are 16-byte aligned: %s\n", points[0].x, points[0].y,
           (((uintptr_t)greeting | (uintptr_t)nothing | (uintptr_t)points) & 15) == 0 ? "yes" : "no");

    ak_free(greeting);
    ak_free(nothing);
    AK_FREE(points); /* frees, and sets points to NULL */

    ak_stats_t stats = {.struct_size = sizeof stats};
    if (!ak_stats_get(&stats) || points != NULL) {
        fprintf(stderr, "hello: ak_stats_get failed\n");
        return EXIT_FAILURE;
    }
    print_known(&stats, AK_KNOWN_ALLOC_COUNT, "blocks handed out", stats.alloc_count);
    print_known(&stats, AK_KNOWN_FREE_COUNT, "blocks taken back", stats.free_count);

    fflush(stdout);
    ak_stats_print(); /* the same and more as text on stderr, the backend's own figures after it */
    return EXIT_SUCCESS;
}
