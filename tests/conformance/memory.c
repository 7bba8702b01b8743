/*
 * memory.c - memory goes back to the system, is reused, and does not pile up when sizes change. Bounds on native only:
 * the other backends keep what their authors chose to keep.
 */
#include "check.h"

#include <time.h>

enum { MIB = 1 << 20 };

static void light_use(double seconds) {
    struct timespec pause;
    pause.tv_sec = 0;
    pause.tv_nsec = 1000000;
    for (int i = 0; i < (int)(seconds * 1000); i++) {
        void *small = ak_alloc(48);
        void *medium = ak_alloc(700);
        CHECK(small != NULL && medium != NULL);
        ak_free(small);
        ak_free(medium);
        nanosleep(&pause, NULL);
    }
}

static void fill_and_free(size_t size, size_t total) {
    size_t count = total / size;
    void **blocks = (void **)ak_alloc(count * sizeof(void *));
    CHECK(blocks != NULL);
    for (size_t i = 0; i < count; i++) {
        blocks[i] = ak_alloc(size);
        CHECK(blocks[i] != NULL);
        memset(blocks[i], 0x33, size);
    }
    for (size_t i = 0; i < count; i++) ak_free(blocks[i]);
    ak_free(blocks);
}

static void returns_memory(size_t size) {
    if (!is_backend("native")) SKIP("asserted for native only");
    if (is_emulated()) SKIP("an emulator's own memory is counted");
    light_use(0.01);
    size_t before = resident_bytes();
    fill_and_free(size, (size_t)200 * MIB);
    light_use(1.9);
    size_t after = resident_bytes();
    CHECK_MSG(after < before + 10 * MIB, "of 200 MiB in blocks of %zu bytes, %zu KiB are still resident", size,
              (after - before) / 1024);
}
TEST(memory_returned_64_byte_blocks) { returns_memory(64); }
TEST(memory_returned_1000_byte_blocks) { returns_memory(1000); }
TEST(memory_returned_20000_byte_blocks) { returns_memory(20000); }
TEST(memory_returned_1_mib_blocks) { returns_memory(MIB); }

/* A thread's bins age: of 50 MiB in small blocks of every size, which fill them all, light use of two sizes leaves what
 * these two need. */
static void *fill_bins(void *argument) {
    static const size_t total = (size_t)50 * MIB;
    void **blocks = (void **)ak_alloc(total / 16 * sizeof(void *));
    CHECK(blocks != NULL);
    light_use(0.01);
    size_t before = resident_bytes(), count = 0;
    /* In a page's steps: eight sizes to a doubling, up to 32 KiB. */
    for (size_t taken = 0; taken < total;)
        for (size_t power = 64; power <= 16384; power *= 2)
            for (size_t size = power + power / 8; size <= 2 * power; size += power / 8) {
                blocks[count] = ak_alloc(size);
                CHECK(blocks[count] != NULL);
                memset(blocks[count++], 0x44, size);
                taken += size;
            }
    while (count > 0) ak_free(blocks[--count]);
    size_t full = resident_bytes();
    light_use(1.9);
    size_t after = resident_bytes();
    CHECK_MSG(after < before + MIB, "%zu KiB are still resident, of %zu right after the last free",
              (after - before) / 1024, (full - before) / 1024);
    ak_free(blocks);
    return argument;
}
TEST(bins_of_a_thread_are_emptied_by_light_use) {
    if (!is_backend("native")) SKIP("asserted for native only");
    if (is_emulated()) SKIP("an emulator's own memory is counted");
    if (is_tracked()) SKIP("tracking keeps notes of its own");
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, fill_bins, NULL) == 0);
    pthread_join(thread, NULL);
}

/* What one size freed, another size gets: the sum never comes near the sum of the rounds. */
TEST(memory_reused_between_sizes) {
    if (!is_backend("native")) SKIP("asserted for native only");
    if (is_emulated()) SKIP("an emulator's own memory is counted");
    static const size_t sizes[] = {32, 5000, 100, 300000, 640, 48, 20000, 1000};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) fill_and_free(sizes[i], (size_t)50 * MIB);
    CHECK_MSG(resident_bytes() < (size_t)150 * MIB, "%zu KiB resident after eight rounds of 50 MiB", resident_bytes() / 1024);
}

/* Large blocks that are taken and given in turn cost no growth. */
TEST(large_blocks_do_not_pile_up) {
    if (is_emulated()) SKIP("an emulator's own memory is counted");
    void *held[8];
    memset(held, 0, sizeof held);
    uint64_t random = 3;
    for (int i = 0; i < 20000; i++) {
        uint64_t r = random_next(&random);
        ak_free(held[r % 8]);
        size_t size = 100000 + (size_t)(r / 8 % 2000000);
        held[r % 8] = ak_alloc(size);
        CHECK(held[r % 8] != NULL);
        ((char *)held[r % 8])[0] = ((char *)held[r % 8])[size - 1] = 1;
    }
    CHECK_MSG(resident_bytes() < (size_t)100 * MIB, "%zu KiB resident", resident_bytes() / 1024);
    for (int i = 0; i < 8; i++) ak_free(held[i]);
}
