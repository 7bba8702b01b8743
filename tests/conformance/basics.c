/*
 * basics.c - what a single block promises: alignment, size zero, contents, usable size, copies, errno, identity.
 */
#include "check.h"

TEST(identity) {
    CHECK(ak_abi_version() == AK_ABI_VERSION);
    CHECK(strcmp(ak_version(), CHECK_VERSION) == 0);
    CHECK_MSG(is_backend("native") || is_backend("mimalloc") || is_backend("jemalloc") || is_backend("system"),
              "backend is %s", ak_backend_name());
    const char *wanted = getenv("CHECK_BACKEND");
    CHECK_MSG(wanted == NULL || is_backend(wanted), "backend is %s, not %s", ak_backend_name(), wanted);
}

/* The mode that the runner asked for is the mode that is tested; otherwise the tests of tracking would skip silently. */
TEST(track_level_is_what_was_asked_for) {
    const char *wanted = getenv("CHECK_TRACKED");
    if (wanted == NULL) SKIP("CHECK_TRACKED is not set");
    CHECK(is_tracked() == (strcmp(wanted, "1") == 0));
}

TEST(alignment_of_every_small_size) {
    static void *blocks[4097];
    for (size_t size = 0; size <= 4096; size++) {
        blocks[size] = ak_alloc(size);
        CHECK_MSG(blocks[size] != NULL && is_aligned(blocks[size], 16), "size %zu gave %p", size, blocks[size]);
        pattern_fill(blocks[size], size, size);
    }
    for (size_t size = 0; size <= 4096; size++) {
        CHECK_MSG(pattern_holds(blocks[size], size, size), "block of %zu bytes overlaps another", size);
        ak_free(blocks[size]);
    }
    for (size_t size = 0; size <= 4096; size++) {
        void *zeroed = ak_calloc(1, size);
        void *grown = ak_realloc(ak_alloc(1), size + 1);
        CHECK_MSG(zeroed != NULL && is_aligned(zeroed, 16), "calloc of %zu gave %p", size, zeroed);
        CHECK_MSG(grown != NULL && is_aligned(grown, 16), "realloc to %zu gave %p", size + 1, grown);
        ak_free(zeroed);
        ak_free(grown);
    }
}

TEST(alignment_around_powers_of_two) {
    for (size_t power = 4096; power <= (size_t)64 << 20; power *= 2)
        for (int offset = -33; offset <= 33; offset += 11) {
            size_t size = power + (size_t)offset;
            unsigned char *block = (unsigned char *)ak_alloc(size);
            CHECK_MSG(block != NULL && is_aligned(block, 16), "size %zu gave %p", size, (void *)block);
            CHECK(ak_usable_size(block) >= size);
            block[0] = 1;
            block[size / 2] = 2;
            block[size - 1] = 3;
            CHECK(block[0] == 1 && block[size / 2] == 2 && block[size - 1] == 3);
            ak_free(block);
        }
}

TEST(alignment_any_power_of_two_up_to_32_mib) {
    static const size_t sizes[] = {0, 1, 8, 15, 16, 17, 100, 1000, 4095, 4096, 4097, 70000, 1500000};
    enum { SIZES = sizeof sizes / sizeof sizes[0] };
    for (size_t alignment = 1; alignment <= (size_t)32 << 20; alignment *= 2) {
        void *blocks[SIZES], *zeroed[SIZES];
        for (size_t i = 0; i < SIZES; i++) {
            blocks[i] = ak_alloc_aligned(sizes[i], alignment);
            zeroed[i] = ak_calloc_aligned(1, sizes[i], alignment);
            CHECK_MSG(blocks[i] != NULL && is_aligned(blocks[i], alignment) && is_aligned(blocks[i], 16),
                      "size %zu, alignment %zu gave %p", sizes[i], alignment, blocks[i]);
            CHECK_MSG(zeroed[i] != NULL && is_aligned(zeroed[i], alignment) && is_aligned(zeroed[i], 16),
                      "zeroed: size %zu, alignment %zu gave %p", sizes[i], alignment, zeroed[i]);
            CHECK(ak_usable_size(blocks[i]) >= sizes[i]);
            pattern_fill(blocks[i], sizes[i], i);
        }
        for (size_t i = 0; i < SIZES; i++) {
            CHECK_MSG(pattern_holds(blocks[i], sizes[i], i), "size %zu, alignment %zu overlaps", sizes[i], alignment);
            for (size_t at = 0; at < sizes[i]; at += at < 4096 ? 1 : 997)
                CHECK(((unsigned char *)zeroed[i])[at] == 0);
            if (i % 2 == 0) {
                ak_free(blocks[i]);
            } else {
                ak_free_sized(blocks[i], sizes[i]);
            }
            ak_free(zeroed[i]);
        }
    }
}

TEST(alignment_up_to_1_gib) {
    if (is_emulated()) SKIP("an emulator has too little address space");
    for (size_t alignment = (size_t)64 << 20; alignment <= (size_t)1 << 30; alignment *= 2) {
        unsigned char *block = (unsigned char *)ak_alloc_aligned(5000, alignment);
        CHECK_MSG(block != NULL && is_aligned(block, alignment), "alignment %zu gave %p", alignment, (void *)block);
        pattern_fill(block, 5000, alignment);
        CHECK(pattern_holds(block, 5000, alignment));
        CHECK(ak_usable_size(block) >= 5000);
        ak_free(block);
    }
}

TEST(aligned_blocks_resize) {
    for (size_t alignment = 32; alignment <= 65536; alignment *= 4) {
        void *block = ak_reallocarray_aligned(NULL, 3, 50, alignment);
        CHECK(block != NULL && is_aligned(block, alignment));
        pattern_fill(block, 150, alignment);
        size_t kept = 150;
        for (size_t count = 4; count <= 40000; count *= 3) {
            block = ak_reallocarray_aligned(block, count, 50, alignment);
            CHECK_MSG(block != NULL && is_aligned(block, alignment), "alignment %zu lost at %zu", alignment, count * 50);
            CHECK(pattern_holds(block, kept, alignment));
            kept = count * 50;
            pattern_fill(block, kept, alignment);
        }
        block = ak_reallocarray_aligned(block, 1, 50, alignment);
        CHECK(block != NULL && is_aligned(block, alignment) && pattern_holds(block, 50, alignment));
        /* The plain realloc keeps 16 only, and the contents. */
        block = ak_realloc(block, 100000);
        CHECK(block != NULL && is_aligned(block, 16) && pattern_holds(block, 50, alignment));
        ak_free(block);
        CHECK(ak_reallocarray_aligned(ak_alloc(1), 0, 50, alignment) == NULL);
    }
}

TEST(size_zero_is_unique_and_freeable) {
    enum { COUNT = 200 };
    void *blocks[6 * COUNT];
    for (size_t i = 0; i < COUNT; i++) {
        blocks[6 * i] = ak_alloc(0);
        blocks[6 * i + 1] = ak_calloc(0, 8);
        blocks[6 * i + 2] = ak_calloc(8, 0);
        blocks[6 * i + 3] = ak_alloc_aligned(0, 64);
        blocks[6 * i + 4] = ak_realloc(NULL, 0);
        blocks[6 * i + 5] = ak_memdup(NULL, 0);
    }
    for (size_t i = 0; i < 6 * COUNT; i++) {
        CHECK_MSG(blocks[i] != NULL && is_aligned(blocks[i], 16), "zero-size block %zu is %p", i, blocks[i]);
        for (size_t j = 0; j < i; j++) CHECK_MSG(blocks[i] != blocks[j], "two zero-size blocks at %p", blocks[i]);
    }
    for (size_t i = 0; i < 6 * COUNT; i++) ak_free(blocks[i]);
    ak_free_sized(ak_alloc(0), 0);
}

TEST(usable_size_is_writable) {
    for (size_t size = 0; size <= (size_t)8 << 20; size = size < 2000 ? size + 1 : size + size / 7) {
        unsigned char *before = (unsigned char *)ak_alloc(64);
        unsigned char *block = (unsigned char *)ak_alloc(size);
        unsigned char *after = (unsigned char *)ak_alloc(64);
        CHECK(before != NULL && block != NULL && after != NULL);
        memset(before, 0x11, 64);
        memset(after, 0x22, 64);
        size_t usable = ak_usable_size(block);
        CHECK_MSG(usable >= size, "usable size of %zu bytes is %zu", size, usable);
        memset(opaque_pointer(block), 0xee, usable);
        for (size_t i = 0; i < 64; i++) CHECK_MSG(before[i] == 0x11 && after[i] == 0x22, "%zu bytes overlap", size);
        CHECK(ak_usable_size(block) == usable);
        ak_free(before);
        ak_free(after);
        ak_free(block);
    }
    CHECK(ak_usable_size(NULL) == 0);
}

TEST(calloc_is_zeroed_after_dirty_reuse) {
    for (size_t size = 1; size <= (size_t)4 << 20; size = size < 512 ? size + 13 : size * 2 + 3) {
        void *dirty[4];
        for (int round = 0; round < 4; round++) {
            for (int i = 0; i < 4; i++) {
                dirty[i] = ak_alloc(size);
                CHECK(dirty[i] != NULL);
                memset(dirty[i], 0xa5, ak_usable_size(dirty[i]));
            }
            for (int i = 0; i < 4; i++) ak_free(dirty[i]);
            for (int i = 0; i < 4; i++) {
                unsigned char *zeroed = (unsigned char *)(i % 2 == 0 ? ak_calloc(1, size) : ak_calloc_aligned(size, 1, 64));
                CHECK(zeroed != NULL);
                for (size_t at = 0; at < size; at++)
                    CHECK_MSG(zeroed[at] == 0, "calloc of %zu bytes is not zero at %zu", size, at);
                memset(zeroed, 0x5a, size);
                dirty[i] = zeroed;
            }
            for (int i = 0; i < 4; i++) ak_free(dirty[i]);
        }
    }
}

TEST(free_preserves_errno) {
    static const size_t sizes[] = {0, 1, 16, 100, 1000, 5000, 40000, 300000, (size_t)3 << 20, (size_t)40 << 20, (size_t)200 << 20};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
        for (int how = 0; how < 3; how++) {
            unsigned char *block = (unsigned char *)(how == 2 ? ak_alloc_aligned(sizes[i], 4096) : ak_alloc(sizes[i]));
            CHECK(block != NULL);
            if (sizes[i] != 0) block[0] = block[sizes[i] - 1] = 1;
            errno = 12345;
            if (how == 1) {
                ak_free_sized(block, sizes[i]);
            } else {
                ak_free(block);
            }
            CHECK_MSG(errno == 12345, "free of %zu bytes set errno to %d", sizes[i], errno);
        }
    errno = 4321;
    ak_free(NULL);
    ak_free_sized(NULL, 0);
    ak_free_sized(NULL, 100);
    ak_free_at(NULL, "file", 1);
    CHECK(errno == 4321);
}

TEST(free_sized_takes_the_size_that_was_asked_for) {
    for (size_t size = 0; size < 300000; size = size < 600 ? size + 1 : size + size / 3) {
        ak_free_sized(ak_alloc(size), size);
        ak_free_sized(ak_calloc(size, 1), size);
        ak_free_sized(ak_realloc(ak_alloc(3), size + 1), size + 1);
        for (size_t alignment = 1; alignment <= 65536; alignment *= 2) {
            ak_free_sized(ak_alloc_aligned(size, alignment), size);
            ak_free_sized(ak_calloc_aligned(1, size, alignment), size);
        }
    }
    ak_free_sized(ak_strdup("four"), 5);
    ak_free_sized(ak_strndup("four", 2), 3);
    ak_free_sized(ak_memdup("four", 4), 4);
    CHECK(ak_fault_count() == 0);
    /* Whoever freed by a wrong class above finds overlapping blocks now. */
    enum { COUNT = 3000 };
    static void *blocks[COUNT];
    for (size_t i = 0; i < COUNT; i++) {
        blocks[i] = ak_alloc(i % 700);
        CHECK(blocks[i] != NULL);
        pattern_fill(blocks[i], i % 700, i);
    }
    for (size_t i = 0; i < COUNT; i++) {
        CHECK(pattern_holds(blocks[i], i % 700, i));
        ak_free(blocks[i]);
    }
}

TEST(copies) {
    char text[300];
    for (size_t length = 0; length < sizeof text; length++) {
        memset(text, 'x', length);
        text[length] = 0;
        char *whole = ak_strdup(text);
        char *part = ak_strndup(text, length / 2);
        char *longer = ak_strndup(text, length + 100);
        unsigned char *bytes = (unsigned char *)ak_memdup(text, length);
        CHECK(whole != NULL && strcmp(whole, text) == 0 && is_aligned(whole, 16));
        CHECK(part != NULL && strlen(part) == length / 2 && memcmp(part, text, length / 2) == 0);
        CHECK(longer != NULL && strcmp(longer, text) == 0);
        CHECK(bytes != NULL && memcmp(bytes, text, length) == 0);
        ak_free(whole);
        ak_free(part);
        ak_free(longer);
        ak_free(bytes);
    }
    /* strndup reads no byte beyond n: the text here has no end. */
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    char *unended = (char *)ak_alloc_aligned(page, page);
    CHECK(unended != NULL);
    memset(unended, 'y', page);
    char *tail = ak_strndup(unended + page - 4, 4);
    CHECK(tail != NULL && strcmp(tail, "yyyy") == 0);
    ak_free(tail);
    ak_free(unended);
    char empty[1] = {0};
    char *nothing = ak_strdup(empty);
    CHECK(nothing != NULL && nothing[0] == 0);
    ak_free(nothing);
}

TEST(copies_of_null) {
    errno = 0;
    CHECK(ak_strdup((const char *)opaque_pointer(NULL)) == NULL && errno == EINVAL);
    errno = 0;
    CHECK(ak_strndup((const char *)opaque_pointer(NULL), 5) == NULL && errno == EINVAL);
    errno = 0;
    CHECK(ak_memdup(opaque_pointer(NULL), 5) == NULL && errno == EINVAL);
}

TEST(many_live_blocks) {
    enum { COUNT = 300000 };
    void **blocks = (void **)ak_alloc(COUNT * sizeof(void *));
    CHECK(blocks != NULL);
    uint64_t random = 7;
    for (size_t i = 0; i < COUNT; i++) {
        size_t size = 16 + random_next(&random) % 100;
        blocks[i] = ak_alloc(size);
        CHECK(blocks[i] != NULL);
        *(size_t *)blocks[i] = i;
    }
    for (size_t i = 0; i < COUNT; i++) { /* freed in an order of their own */
        size_t j = i + random_next(&random) % (COUNT - i);
        void *other = blocks[i];
        blocks[i] = blocks[j];
        blocks[j] = other;
    }
    static unsigned char seen[COUNT];
    for (size_t i = 0; i < COUNT; i++) {
        size_t number = *(size_t *)blocks[i];
        CHECK(number < COUNT && !seen[number]);
        seen[number] = 1;
        ak_free(blocks[i]);
    }
    ak_free(blocks);
}
