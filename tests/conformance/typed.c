/*
 * typed.c - AK_NEW, AK_ARRAY, AK_RESIZE, AK_FREE, with ordinary and over-aligned types.
 */
#include "check.h"

typedef struct point {
    double x, y;
    char name[7];
} point_t;
typedef struct {
    char bytes[100];
} __attribute__((aligned(64))) cache_line_t;
typedef struct {
    char bytes[4096];
} __attribute__((aligned(4096))) page_t;

static bool is_zero(const void *block, size_t size) {
    const unsigned char *bytes = (const unsigned char *)block;
    for (size_t i = 0; i < size; i++)
        if (bytes[i] != 0) return false;
    return true;
}

TEST(typed_new_is_zeroed) {
    for (int round = 0; round < 100; round++) {
        point_t *point = AK_NEW(point_t);
        cache_line_t *line = AK_NEW(cache_line_t);
        page_t *page = AK_NEW(page_t);
        CHECK(point != NULL && is_zero(point, sizeof *point));
        CHECK(line != NULL && is_aligned(line, 64) && is_zero(line, sizeof *line));
        CHECK(page != NULL && is_aligned(page, 4096) && is_zero(page, sizeof *page));
        memset(point, 0xff, sizeof *point);
        memset(line, 0xff, sizeof *line);
        memset(page, 0xff, sizeof *page);
        AK_FREE(point);
        AK_FREE(line);
        AK_FREE(page);
        CHECK(point == NULL && line == NULL && page == NULL);
        AK_FREE(point); /* NULL is allowed */
    }
}

TEST(typed_arrays) {
    for (size_t count = 0; count < 300; count += 7) {
        point_t *points = AK_ARRAY(point_t, count);
        cache_line_t *lines = AK_ARRAY(cache_line_t, count);
        CHECK(points != NULL && is_zero(points, count * sizeof *points));
        CHECK(lines != NULL && is_aligned(lines, 64) && is_zero(lines, count * sizeof *lines));
        AK_FREE(points);
        AK_FREE(lines);
    }
    errno = 0;
    point_t *points = AK_ARRAY(point_t, opaque_size(SIZE_MAX / sizeof(point_t) + 2));
    CHECK(points == NULL && errno == ENOMEM);
    errno = 0;
    cache_line_t *lines = AK_ARRAY(cache_line_t, opaque_size(SIZE_MAX / sizeof(cache_line_t) + 2));
    CHECK(lines == NULL && errno == ENOMEM);
}

TEST(typed_resize) {
    /* Several over-aligned arrays side by side: one alone may lie right by chance. */
    cache_line_t *others[8];
    for (int i = 0; i < 8; i++) others[i] = AK_RESIZE((cache_line_t *)NULL, cache_line_t, 1);
    for (size_t count = 2; count < 300; count += count / 2)
        for (int i = 0; i < 8; i++) {
            others[i] = AK_RESIZE(others[i], cache_line_t, count);
            CHECK(others[i] != NULL && is_aligned(others[i], 64));
        }
    for (int i = 0; i < 8; i++) AK_FREE(others[i]);
    point_t *points = AK_RESIZE((point_t *)NULL, point_t, 1);
    cache_line_t *lines = AK_RESIZE((cache_line_t *)NULL, cache_line_t, 1);
    CHECK(points != NULL && lines != NULL && is_aligned(lines, 64));
    points[0].x = 0;
    lines[0].bytes[99] = 0;
    for (size_t count = 2; count < 3000; count += count / 3 + 1) {
        points = AK_RESIZE(points, point_t, count);
        lines = AK_RESIZE(lines, cache_line_t, count);
        CHECK(points != NULL && lines != NULL);
        CHECK_MSG(is_aligned(lines, 64), "an over-aligned array lost its alignment at %zu", count);
        points[count - 1].x = (double)count;
        lines[count - 1].bytes[99] = (char)count;
    }
    for (size_t count = 2; count < 3000; count += count / 3 + 1)
        CHECK((size_t)points[count - 1].x == count && lines[count - 1].bytes[99] == (char)count);
    errno = 0;
    point_t *refused = AK_RESIZE(points, point_t, opaque_size(SIZE_MAX / 2));
    CHECK(refused == NULL && errno == ENOMEM && (size_t)points[1].x == 2);
    AK_FREE(points);
    AK_FREE(lines);
}

TEST(typed_free_evaluates_once) {
    point_t *points[3];
    for (int i = 0; i < 3; i++) points[i] = AK_NEW(point_t);
    int i = 0;
    AK_FREE(points[i++]);
    AK_FREE(points[i++]);
    CHECK(i == 2 && points[0] == NULL && points[1] == NULL && points[2] != NULL);
    AK_FREE(points[2]);
}

/* The functions stay reachable behind the macros: as callbacks, and by name in parentheses. */
TEST(functions_as_values) {
    void *(*allocate)(size_t) = &ak_alloc;
    void (*release)(void *) = &ak_free;
    void *(*resize)(void *, size_t) = ak_realloc;
    void *block = allocate(10);
    CHECK(block != NULL);
    block = resize(block, 1000);
    CHECK(block != NULL);
    release(block);
    block = (ak_calloc)(3, 4);
    CHECK(block != NULL);
    (ak_free)(block);
}
