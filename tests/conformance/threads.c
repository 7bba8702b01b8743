/*
 * threads.c - any thread frees any block: hand-over, short-lived threads, dead owners, and a random stress with all of it.
 */
#include "check.h"

#include <sched.h>

typedef struct block {
    struct block *next;
    size_t size;
    uint64_t seed;
} block_t;

static block_t *block_new(size_t size, uint64_t seed) {
    block_t *block = (block_t *)ak_alloc(sizeof(block_t) + size);
    CHECK(block != NULL && is_aligned(block, 16));
    block->next = NULL;
    block->size = size;
    block->seed = seed;
    pattern_fill(block + 1, size, seed ^ address_of(block));
    return block;
}

static void block_delete(block_t *block) {
    CHECK_MSG(pattern_holds(block + 1, block->size, block->seed ^ address_of(block)), "a block of %zu bytes was damaged",
              block->size);
    ak_free(block);
}

/* ---- hand-over -------------------------------------------------------------------------------------------------- */

typedef struct channel {
    pthread_mutex_t lock;
    block_t *first;
    int open; /* producers that still work */
} channel_t;
static channel_t channel = {PTHREAD_MUTEX_INITIALIZER, NULL, 0};

enum { BATCH = 64, BATCHES = 1500 };

static void *produce(void *argument) {
    uint64_t random = (uint64_t)(uintptr_t)argument;
    for (int batch = 0; batch < BATCHES; batch++) {
        block_t *first = NULL, *last = NULL;
        for (int i = 0; i < BATCH; i++) {
            uint64_t r = random_next(&random);
            block_t *block = block_new(r % 16 == 0 ? r / 16 % 20000 : r / 16 % 300, r);
            block->next = first;
            first = block;
            if (last == NULL) last = block;
        }
        pthread_mutex_lock(&channel.lock);
        last->next = channel.first;
        channel.first = first;
        pthread_mutex_unlock(&channel.lock);
    }
    pthread_mutex_lock(&channel.lock);
    channel.open--;
    pthread_mutex_unlock(&channel.lock);
    return NULL;
}

static void *consume(void *argument) {
    (void)argument;
    for (;;) {
        pthread_mutex_lock(&channel.lock);
        block_t *first = channel.first;
        bool open = channel.open > 0;
        channel.first = NULL;
        pthread_mutex_unlock(&channel.lock);
        if (first == NULL && !open) return NULL;
        if (first == NULL) sched_yield();
        while (first != NULL) {
            block_t *next = first->next;
            block_delete(first);
            first = next;
        }
    }
}

TEST(producers_and_consumers) {
    pthread_t threads[4];
    channel.open = 2;
    for (int i = 0; i < 4; i++)
        CHECK(pthread_create(&threads[i], NULL, i < 2 ? produce : consume, (void *)(uintptr_t)(i + 1)) == 0);
    for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
    CHECK(channel.first == NULL && ak_fault_count() == 0);
}

/* ---- one thread only allocates, one only frees, with few blocks live: memory must not pile up -------------------- */

enum { ROUNDS = 400, PER_ROUND = 512, EACH = 1000 };
static pthread_barrier_t handed_over;
static void *in_hand[PER_ROUND];

static void *only_free(void *argument) {
    for (int round = 0; round < ROUNDS; round++) {
        pthread_barrier_wait(&handed_over);
        for (int i = 0; i < PER_ROUND; i++) ak_free(in_hand[i]);
        pthread_barrier_wait(&handed_over);
    }
    return argument;
}

TEST(a_thread_that_only_frees_does_not_hoard) {
    pthread_t thread;
    pthread_barrier_init(&handed_over, NULL, 2);
    CHECK(pthread_create(&thread, NULL, only_free, NULL) == 0);
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < PER_ROUND; i++) {
            in_hand[i] = ak_alloc(EACH);
            CHECK(in_hand[i] != NULL);
            memset(in_hand[i], 1, EACH);
        }
        pthread_barrier_wait(&handed_over);
        pthread_barrier_wait(&handed_over);
    }
    pthread_join(thread, NULL);
    /* 205 MB went through; half a megabyte was live at any time. */
    CHECK_MSG(resident_bytes() < (size_t)100 << 20, "%zu bytes resident", resident_bytes());
}

/* ---- threads that come and go ----------------------------------------------------------------------------------- */

static void *short_life(void *argument) {
    uint64_t random = (uint64_t)(uintptr_t)argument;
    for (int i = 0; i < 20; i++) {
        block_t *block = block_new(random_next(&random) % 3000, random);
        block_delete(block);
    }
    void *touched = ak_alloc(60000);
    CHECK(touched != NULL);
    memset(touched, 1, 60000);
    ak_free(touched);
    return block_new(random_next(&random) % 500, random); /* outlives its thread */
}

TEST(thousands_of_short_lived_threads) {
    enum { AT_ONCE = 4 };
    int rounds = is_emulated() ? 50 : 1000;
    block_t *left = NULL;
    for (int round = 0; round < rounds; round++) {
        pthread_t threads[AT_ONCE];
        for (int i = 0; i < AT_ONCE; i++)
            CHECK(pthread_create(&threads[i], NULL, short_life, (void *)(uintptr_t)(round * AT_ONCE + i + 1)) == 0);
        for (int i = 0; i < AT_ONCE; i++) {
            void *block;
            pthread_join(threads[i], &block);
            ((block_t *)block)->next = left;
            left = (block_t *)block;
        }
    }
    CHECK_MSG(is_emulated() || resident_bytes() < (size_t)64 << 20, "%zu bytes resident: state of dead threads stays",
              resident_bytes());
    while (left != NULL) {
        block_t *next = left->next;
        block_delete(left);
        left = next;
    }
    ak_stats_t stats;
    stats.struct_size = sizeof stats;
    CHECK(ak_stats_get(&stats));
    CHECK_MSG((stats.known & AK_KNOWN_THREADS) == 0 || stats.threads <= 16, "%llu threads",
              (unsigned long long)stats.threads);
}

enum { OWNERS = 8, OWNED = 4000 };
static void *make_blocks(void *argument) {
    block_t *first = NULL;
    uint64_t random = (uint64_t)(uintptr_t)argument;
    for (int i = 0; i < OWNED; i++) {
        block_t *block = block_new(random_next(&random) % 600, random);
        block->next = first;
        first = block;
    }
    return first;
}
static void *delete_blocks(void *first) {
    for (block_t *block = (block_t *)first; block != NULL;) {
        block_t *next = block->next;
        block_delete(block);
        block = next;
    }
    return NULL;
}

TEST(blocks_of_dead_threads) {
    for (int round = 0; round < 3; round++) {
        pthread_t threads[OWNERS];
        void *blocks[OWNERS];
        for (int i = 0; i < OWNERS; i++)
            CHECK(pthread_create(&threads[i], NULL, make_blocks, (void *)(uintptr_t)(i + 1)) == 0);
        for (int i = 0; i < OWNERS; i++) pthread_join(threads[i], &blocks[i]);
        for (int i = 0; i < OWNERS / 2; i++) /* some by new threads at the same time, some here */
            CHECK(pthread_create(&threads[i], NULL, delete_blocks, blocks[i]) == 0);
        for (int i = OWNERS / 2; i < OWNERS; i++) delete_blocks(blocks[i]);
        for (int i = 0; i < OWNERS / 2; i++) pthread_join(threads[i], NULL);
    }
    CHECK(ak_fault_count() == 0);
}

static void *resize_blocks(void *argument) {
    block_t **blocks = (block_t **)argument;
    for (int i = 0; i < 300; i++) {
        block_t *block = blocks[i];
        size_t kept = block->size;
        uint64_t pattern = block->seed ^ address_of(block);
        block = (block_t *)ak_realloc(block, sizeof(block_t) + kept * 2 + 1);
        CHECK(block != NULL && pattern_holds(block + 1, kept, pattern));
        ak_free(block);
    }
    return NULL;
}

TEST(realloc_of_another_threads_block) {
    block_t *blocks[300];
    for (size_t i = 0; i < 300; i++) blocks[i] = block_new(i * i, i);
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, resize_blocks, blocks) == 0);
    pthread_join(thread, NULL);
}

/* ---- random stress: blocks in shared slots, every operation, contents verified ----------------------------------- */

enum { SLOTS = 2048, WORKERS = 4 };
static void *slots[SLOTS]; /* each a block_t, or NULL; taken and put by atomic exchange */

static size_t random_size(uint64_t *random) {
    uint64_t r = random_next(random);
    unsigned bits = (unsigned)(r % 100 < 85 ? r / 128 % 10 : r / 128 % 20);
    return (size_t)(random_next(random) & (((uint64_t)2 << bits) - 1));
}

static void *stress_worker(void *argument) {
    uint64_t random = (uint64_t)(uintptr_t)argument * UINT64_C(0x9e3779b97f4a7c15);
    int operations = is_emulated() ? 4000 : 40000;
    for (int i = 0; i < operations; i++) {
        uint64_t r = random_next(&random);
        size_t size = random_size(&random);
        void **slot = &slots[r % SLOTS];
        block_t *block = (block_t *)__atomic_exchange_n(slot, NULL, __ATOMIC_ACQ_REL);
        unsigned what = (unsigned)(r >> 32) % 16;
        if (block != NULL && what < 5) {
            size_t kept = block->size < size ? block->size : size;
            uint64_t old_pattern = block->seed ^ address_of(block);
            size_t old_size = block->size;
            CHECK(pattern_holds(block + 1, old_size, old_pattern));
            block_t *resized = (block_t *)ak_realloc(block, sizeof(block_t) + size);
            CHECK(resized != NULL && pattern_holds(resized + 1, kept, old_pattern));
            resized->size = size;
            resized->seed = r;
            pattern_fill(resized + 1, size, r ^ address_of(resized));
            block = resized;
        } else {
            if (block != NULL) block_delete(block);
            block = NULL;
            if (what < 8) {
                block = block_new(size, r);
            } else if (what < 14) {
                size_t alignment = (size_t)1 << (r >> 40) % 13;
                void *memory = what < 11   ? ak_alloc_aligned(sizeof(block_t) + size, alignment)
                               : what < 13 ? ak_calloc(1, sizeof(block_t) + size)
                                           : ak_calloc_aligned(1, sizeof(block_t) + size, alignment);
                CHECK(memory != NULL && is_aligned(memory, what == 11 || what == 12 ? 16 : alignment));
                if (what >= 11)
                    for (size_t at = 0; at < sizeof(block_t) + size; at += 61) CHECK(((char *)memory)[at] == 0);
                CHECK(ak_usable_size(memory) >= sizeof(block_t) + size);
                block = (block_t *)memory;
                block->next = NULL;
                block->size = size;
                block->seed = r;
                pattern_fill(block + 1, size, r ^ address_of(block));
            }
        }
        if (block != NULL) {
            block_t *other = (block_t *)__atomic_exchange_n(slot, (void *)block, __ATOMIC_ACQ_REL);
            if (other != NULL) block_delete(other);
        }
    }
    return NULL;
}

TEST(stress_with_content_verification) {
    ak_stats_t before, after;
    before.struct_size = after.struct_size = sizeof before;
    CHECK(ak_stats_get(&before));
    for (int generation = 0; generation < 2; generation++) {
        pthread_t threads[WORKERS];
        for (int i = 0; i < WORKERS; i++)
            CHECK(pthread_create(&threads[i], NULL, stress_worker, (void *)(uintptr_t)(generation * WORKERS + i + 1)) == 0);
        for (int i = 0; i < WORKERS; i++) pthread_join(threads[i], NULL);
    }
    for (int i = 0; i < SLOTS; i++)
        if (slots[i] != NULL) block_delete((block_t *)slots[i]);
    CHECK(ak_fault_count() == 0);
    CHECK(ak_stats_get(&after));
    if (is_tracked()) {
        CHECK(after.current_bytes == before.current_bytes);
        CHECK(after.alloc_count - before.alloc_count == after.free_count - before.free_count);
        CHECK(after.alloc_bytes - before.alloc_bytes == after.free_bytes - before.free_bytes);
        CHECK(after.peak_bytes >= after.current_bytes);
    }
}

/* A thread with a stack near the smallest: the library must not need deep stacks. */
TEST(small_stacks) {
    pthread_attr_t attributes;
    pthread_t thread;
    CHECK(pthread_attr_init(&attributes) == 0);
    long smallest = sysconf(_SC_THREAD_STACK_MIN); /* more than 64 KiB on some machines */
    size_t size = smallest > 64 * 1024 ? (size_t)smallest : 64 * 1024;
    CHECK(pthread_attr_setstacksize(&attributes, size) == 0);
    for (int i = 0; i < 10; i++) {
        void *block;
        CHECK(pthread_create(&thread, &attributes, short_life, (void *)(uintptr_t)(i + 1)) == 0);
        pthread_join(thread, &block);
        block_delete((block_t *)block);
    }
}
