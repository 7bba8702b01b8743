/*
 * resize.c - realloc: contents, NULL, size zero, failure that leaves everything as it was.
 */
#include "check.h"

TEST(realloc_of_null_allocates) {
    for (size_t size = 0; size < 100000; size = size * 3 + 1) {
        void *block = ak_realloc(NULL, size);
        CHECK(block != NULL && is_aligned(block, 16));
        pattern_fill(block, size, size);
        CHECK(pattern_holds(block, size, size) && ak_usable_size(block) >= size);
        ak_free(block);
    }
    void *array = ak_reallocarray(NULL, 10, 30);
    CHECK(array != NULL && ak_usable_size(array) >= 300);
    ak_free(array);
}

TEST(realloc_to_zero_frees) {
    static const size_t sizes[] = {0, 1, 100, 5000, 100000, (size_t)5 << 20};
    ak_stats_t before, after;
    before.struct_size = after.struct_size = sizeof before;
    CHECK(ak_stats_get(&before));
    for (int round = 0; round < 50; round++)
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
            void *blocks[3];
            for (int j = 0; j < 3; j++) {
                blocks[j] = ak_alloc(sizes[i]);
                CHECK(blocks[j] != NULL);
                memset(blocks[j], 1, sizes[i]); /* resident, so that what is kept shows */
            }
            CHECK(ak_realloc(blocks[0], opaque_size(0)) == NULL);
            CHECK(ak_reallocarray(blocks[1], 0, 8) == NULL);
            CHECK(ak_reallocarray(blocks[2], 8, 0) == NULL);
        }
    CHECK(ak_stats_get(&after));
    if (is_tracked()) CHECK(after.current_bytes == before.current_bytes && after.free_count == before.free_count + 900);
    CHECK_MSG(resident_bytes() < (size_t)200 << 20, "blocks were not freed");
    CHECK(ak_fault_count() == 0);
}

/* The size classes of any backend are met by growing in steps of a few percent. */
TEST(realloc_keeps_contents_through_all_classes) {
    void *block = ak_alloc(1);
    size_t size = 1;
    pattern_fill(block, size, 99);
    while (size < (size_t)40 << 20) {
        size_t larger = size < 300 ? size + 1 : size + size / 9;
        block = ak_realloc(block, larger);
        CHECK(block != NULL && is_aligned(block, 16));
        CHECK_MSG(pattern_holds(block, size, 99), "growing from %zu to %zu", size, larger);
        size = larger;
        pattern_fill(block, size, 99);
    }
    while (size > 1) {
        size_t smaller = size <= 300 ? size - 1 : size - size / 9;
        block = ak_realloc(block, smaller);
        CHECK(block != NULL && is_aligned(block, 16));
        CHECK_MSG(pattern_holds(block, smaller, 99), "shrinking from %zu to %zu", size, smaller);
        CHECK(ak_usable_size(block) >= smaller);
        size = smaller;
    }
    ak_free(block);
}

TEST(realloc_far_up_and_down) {
    static const size_t sizes[] = {1, 16, 24, 200, 1024, 4000, 9000, 33000, 70000, 300000, (size_t)1 << 20, (size_t)9 << 20};
    enum { SIZES = sizeof sizes / sizeof sizes[0] };
    for (size_t from = 0; from < SIZES; from++)
        for (size_t to = 0; to < SIZES; to++) {
            void *neighbour = ak_alloc(sizes[from]);
            void *block = ak_alloc(sizes[from]);
            CHECK(neighbour != NULL && block != NULL);
            pattern_fill(neighbour, sizes[from], 1);
            pattern_fill(block, sizes[from], 2);
            block = ak_realloc(block, sizes[to]);
            CHECK(block != NULL);
            size_t kept = sizes[from] < sizes[to] ? sizes[from] : sizes[to];
            CHECK_MSG(pattern_holds(block, kept, 2), "from %zu to %zu", sizes[from], sizes[to]);
            pattern_fill(block, sizes[to], 3);
            CHECK_MSG(pattern_holds(neighbour, sizes[from], 1), "from %zu to %zu", sizes[from], sizes[to]);
            ak_free(neighbour);
            CHECK(pattern_holds(block, sizes[to], 3));
            ak_free(block);
        }
}

TEST(realloc_of_aligned_and_zeroed_blocks) {
    for (size_t alignment = 16; alignment <= 65536; alignment *= 8)
        for (size_t size = 1; size < 200000; size = size * 5 + 3) {
            void *block = ak_alloc_aligned(size, alignment);
            CHECK(block != NULL);
            pattern_fill(block, size, 5);
            block = ak_realloc(block, size * 3 + 1);
            CHECK(block != NULL && pattern_holds(block, size, 5));
            ak_free_sized(block, size * 3 + 1);
        }
}

/* A failed realloc: NULL, ENOMEM, the block as it was, no counter moved. */
TEST(failed_realloc_changes_nothing) {
    for (size_t size = 1; size < (size_t)3 << 20; size = size * 4 + 7) {
        void *block = ak_alloc(size);
        CHECK(block != NULL);
        pattern_fill(block, size, size);
        size_t usable = ak_usable_size(block);
        ak_stats_t before, after;
        before.struct_size = after.struct_size = sizeof before;
        CHECK(ak_stats_get(&before));
        for (int i = 0; i < 20; i++) {
            errno = 0;
            CHECK(ak_realloc(block, opaque_size((size_t)PTRDIFF_MAX)) == NULL && errno == ENOMEM);
            errno = 0;
            CHECK(ak_realloc(block, opaque_size((size_t)PTRDIFF_MAX - 100)) == NULL && errno == ENOMEM);
            errno = 0;
            CHECK(ak_realloc(block, opaque_size(SIZE_MAX)) == NULL && errno == ENOMEM);
            errno = 0;
            CHECK(ak_reallocarray(block, opaque_size(SIZE_MAX / 2), 4) == NULL && errno == ENOMEM);
            errno = 0;
            CHECK(ak_reallocarray_aligned(block, 1, opaque_size((size_t)PTRDIFF_MAX), 64) == NULL && errno == ENOMEM);
        }
        CHECK(ak_stats_get(&after));
        CHECK(pattern_holds(block, size, size) && ak_usable_size(block) == usable);
        CHECK(before.known == after.known && before.alloc_count == after.alloc_count);
        CHECK(before.free_count == after.free_count && before.alloc_bytes == after.alloc_bytes);
        CHECK(before.free_bytes == after.free_bytes);
        if (is_tracked()) CHECK(before.current_bytes == after.current_bytes && before.peak_bytes == after.peak_bytes);
        CHECK(ak_fault_count() == 0);
        ak_free(block);
    }
}
