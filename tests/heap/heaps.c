/* Heaps: what heap.h promises, the bad inputs, threads, fork, and arenas with their memory in a heap. */
#include "../conformance/check.h"

static ak_heap_stats_t stats_of(ak_heap_t *heap) {
    ak_heap_stats_t st;
    st.struct_size = sizeof st;
    CHECK(ak_heap_stats(heap, &st));
    CHECK(st.struct_size == sizeof st);
    return st;
}

static ak_heap_t *heap_of(const char *name, size_t limit, ak_heap_t *parent) {
    ak_heap_opts_t opts;
    memset(&opts, 0, sizeof opts);
    opts.struct_size = sizeof opts;
    opts.name = name;
    opts.limit = limit;
    opts.parent = parent;
    ak_heap_t *heap = ak_heap_new(&opts);
    CHECK(heap != NULL);
    return heap;
}

/* Faults are to be counted and to do nothing. */
static uint64_t faults(void) {
    ak_policy_set(AK_POLICY_QUIET);
    return ak_fault_count();
}

TEST(heap_blocks) {
    ak_heap_t *heap = ak_heap_new(NULL);
    char *blocks[600];
    size_t sizes[600];
    uint64_t random = 5;
    CHECK(heap != NULL);
    for (size_t i = 0; i < 600; i++) {
        sizes[i] = i < 400 ? i : random_next(&random) % 200000;
        blocks[i] = (char *)ak_heap_alloc(heap, opaque_size(sizes[i]));
        CHECK(blocks[i] != NULL && is_aligned(blocks[i], 16) && ak_usable_size(blocks[i]) >= sizes[i]);
        pattern_fill(blocks[i], sizes[i], i);
    }
    CHECK(ak_heap_check(heap) == 0 && stats_of(heap).block_count == 600);
    for (size_t i = 0; i < 600; i++) {
        CHECK(pattern_holds(blocks[i], sizes[i], i) && ak_heap_owns(heap, blocks[i]));
        switch (i % 4) {
        case 0: ak_heap_free(heap, blocks[i]); break;
        case 1: ak_free(blocks[i]); break;
        case 2: ak_free_sized(blocks[i], sizes[i]); break;
        default: CHECK(ak_heap_realloc(heap, blocks[i], 0) == NULL); break;
        }
        CHECK(!ak_heap_owns(heap, blocks[i]));
    }
    ak_heap_stats_t st = stats_of(heap);
    CHECK(st.block_count == 0 && st.current_bytes == 0 && st.alloc_count == 600 && st.free_count == 600);
    CHECK(st.peak_bytes > 1000000 && st.reserved_bytes < 200000 && ak_heap_check(heap) == 0);
    CHECK(ak_heap_destroy(heap) && ak_fault_count() == 0);
}

TEST(heap_general_functions_find_the_heap) {
    ak_heap_t *heap = heap_of("found", 1 << 20, NULL);
    char *p = (char *)ak_heap_strdup(heap, "a text");
    CHECK(strcmp(p, "a text") == 0 && ak_usable_size(p) >= 7);
    p = (char *)ak_realloc(p, 5000);
    CHECK(strcmp(p, "a text") == 0 && ak_heap_owns(heap, p + 4999));
    p = (char *)ak_reallocarray(p, 1000, 100);
    CHECK(strcmp(p, "a text") == 0 && ak_heap_owns(heap, p + 99999));
    char *wide = (char *)ak_reallocarray_aligned(p, 10, 100, 4096);
    CHECK(strcmp(wide, "a text") == 0 && is_aligned(wide, 4096) && ak_heap_owns(heap, wide));
    errno = 0;
    CHECK(ak_realloc(wide, opaque_size(2 << 20)) == NULL && errno == ENOMEM && strcmp(wide, "a text") == 0);
    CHECK(ak_realloc(wide, 0) == NULL && stats_of(heap).block_count == 0);
    /* And blocks that are nobody's heap's stay the backend's. */
    char *own = (char *)ak_alloc(100);
    CHECK(!ak_heap_owns(heap, own));
    own = (char *)ak_realloc(own, 100000);
    CHECK(own != NULL && !ak_heap_owns(heap, own));
    ak_free(own);
    CHECK(ak_heap_destroy(heap) && ak_fault_count() == 0);
}

TEST(heap_bad_input) {
    ak_heap_t *none = (ak_heap_t *)opaque_pointer(NULL), *heap = heap_of(NULL, 0, NULL);
    ak_heap_stats_t st;
    ak_heap_opts_t opts;
    memset(&opts, 0, sizeof opts);
    errno = 0;
    CHECK(ak_heap_new(&opts) == NULL && errno == EINVAL); /* no struct_size */
    errno = 0;
    CHECK(ak_heap_alloc(none, 1) == NULL && errno == EINVAL);
    CHECK(ak_heap_calloc(none, 1, 1) == NULL && ak_heap_alloc_aligned(none, 1, 16) == NULL);
    CHECK(ak_heap_realloc(none, NULL, 1) == NULL && ak_heap_strdup(none, "x") == NULL);
    CHECK(!ak_heap_owns(none, heap) && !ak_heap_reset(none) && ak_heap_destroy(none));
    ak_heap_free(none, NULL);
    ak_heap_free(heap, NULL);
    st.struct_size = sizeof st;
    CHECK(!ak_heap_stats(none, &st));
    errno = 0;
    CHECK(!ak_heap_stats(heap, (ak_heap_stats_t *)opaque_pointer(NULL)) && errno == EINVAL);
    st.struct_size = 2 * sizeof(size_t);
    st.peak_bytes = 77;
    CHECK(ak_heap_stats(heap, &st) && st.struct_size == 2 * sizeof(size_t) && st.peak_bytes == 77);
    errno = 0;
    CHECK(ak_heap_strdup(heap, (const char *)opaque_pointer(NULL)) == NULL && errno == EINVAL);
    static const size_t alignments[] = {0, 3, 24, 48, (size_t)1 << 31, SIZE_MAX};
    for (size_t i = 0; i < sizeof alignments / sizeof *alignments; i++) {
        errno = 0;
        CHECK(ak_heap_alloc_aligned(heap, 16, opaque_size(alignments[i])) == NULL && errno == EINVAL);
    }
    static const size_t sizes[] = {SIZE_MAX, PTRDIFF_MAX, (size_t)PTRDIFF_MAX + 1, SIZE_MAX - 15};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        errno = 0;
        CHECK(ak_heap_alloc(heap, opaque_size(sizes[i])) == NULL && errno == ENOMEM);
        errno = 0;
        CHECK(ak_heap_alloc_aligned(heap, opaque_size(sizes[i]), 64) == NULL && errno == ENOMEM);
        errno = 0;
        CHECK(ak_heap_calloc(heap, opaque_size(sizes[i]), 2) == NULL && errno == ENOMEM);
    }
    errno = 0;
    CHECK(ak_heap_calloc(heap, opaque_size((size_t)1 << 32), (size_t)1 << 32) == NULL && errno == ENOMEM);
    void *p = ak_heap_alloc(heap, 0), *q = ak_heap_alloc(heap, 0);
    CHECK(p != NULL && q != NULL && p != q);
    errno = 0;
    CHECK(ak_heap_realloc(heap, p, opaque_size(SIZE_MAX)) == NULL && errno == ENOMEM && ak_heap_owns(heap, p));
    errno = 123;
    ak_heap_free(heap, p);
    ak_free(q);
    CHECK(errno == 123);
    char *zero = (char *)ak_heap_calloc(heap, 10, 100);
    for (int i = 0; i < 1000; i++) CHECK(zero[i] == 0);
    CHECK(strcmp(ak_heap_strndup(heap, "abcdef", 3), "abc") == 0);
    CHECK(memcmp(ak_heap_memdup(heap, "abc", 3), "abc", 3) == 0);
    for (size_t align = 1; align <= ((size_t)1 << 26); align *= 2) {
        char *wide = (char *)ak_heap_alloc_aligned(heap, 100, align);
        CHECK(wide != NULL && is_aligned(wide, align < 16 ? 16 : align));
        memset(wide, 1, 100);
        ak_free(wide);
    }
    CHECK(ak_heap_check(heap) == 0 && ak_heap_destroy(heap) && ak_fault_count() == 0);
}

TEST(heap_limit) {
    ak_heap_t *heap = heap_of("limited", 100000, NULL);
    char *p = (char *)ak_heap_alloc(heap, 60000);
    CHECK(p != NULL);
    memset(p, 7, 60000);
    ak_heap_stats_t before = stats_of(heap);
    errno = 0;
    CHECK(ak_heap_alloc(heap, opaque_size(50000)) == NULL && errno == ENOMEM);
    errno = 0;
    CHECK(ak_heap_realloc(heap, p, opaque_size(100001)) == NULL && errno == ENOMEM);
    CHECK(p[0] == 7 && p[59999] == 7);
    ak_heap_stats_t after = stats_of(heap);
    CHECK(after.failed_count == before.failed_count + 2);
    after.failed_count = before.failed_count;
    CHECK(memcmp(&before, &after, sizeof before) == 0);
    /* What it grows by counts, not both blocks. */
    char *q = (char *)ak_heap_realloc(heap, p, opaque_size(90000));
    CHECK(q != NULL && q[0] == 7 && q[59999] == 7);
    CHECK(ak_heap_alloc(heap, opaque_size(20000)) == NULL);
    q = (char *)ak_heap_realloc(heap, q, 100);
    CHECK(q != NULL && q[99] == 7 && stats_of(heap).current_bytes == 112);
    size_t count = 0;
    while (ak_heap_alloc(heap, 48) != NULL) count++;
    CHECK(count == (100000 - 112) / 48 && stats_of(heap).total_bytes <= 100000);
    CHECK(ak_heap_reset(heap) && ak_heap_alloc(heap, 90000) != NULL);
    CHECK(ak_heap_destroy(heap) && ak_fault_count() == 0);
}

TEST(heap_parents) {
    ak_heap_t *top = heap_of("top", 100000, NULL), *tenant = heap_of("tenant", 0, top);
    ak_heap_t *request = heap_of("request", 50000, tenant);
    void *a = ak_heap_alloc(request, 40000), *b = ak_heap_alloc(tenant, 50000);
    CHECK(a != NULL && b != NULL && ak_heap_alloc(request, opaque_size(20000)) == NULL);
    CHECK(ak_heap_alloc(request, opaque_size(9000)) == NULL && ak_heap_alloc(top, opaque_size(9000)) == NULL);
    CHECK(stats_of(top).total_bytes == stats_of(tenant).total_bytes && stats_of(top).current_bytes == 0);
    CHECK(stats_of(top).child_count == 1 && stats_of(top).limit_bytes == 100000 && stats_of(tenant).limit_bytes == 0);
    uint64_t had = faults();
    errno = 0;
    CHECK(!ak_heap_destroy(top) && errno == EINVAL && !ak_heap_destroy(tenant) && ak_fault_count() == had + 2);
    CHECK(ak_heap_owns(tenant, b) && ak_heap_owns(request, a) && !ak_heap_owns(top, b));
    CHECK(ak_heap_reset(tenant) && !ak_heap_owns(tenant, b) && ak_heap_owns(request, a));
    CHECK(ak_heap_destroy(request) && stats_of(top).total_bytes == 0);
    CHECK(ak_heap_destroy(tenant) && ak_heap_destroy(top) && ak_fault_count() == had + 2);
}

TEST(heap_wrong_pointers) {
    uint64_t had = faults();
    ak_heap_t *heap = heap_of("mine", 0, NULL), *other = heap_of("other", 0, NULL);
    char *p = (char *)ak_heap_strdup(heap, "kept"), *large = (char *)ak_heap_alloc(heap, 100000);
    void *backends = ak_alloc(100);
    int local = 0;
    errno = 0;
    CHECK(ak_heap_realloc(other, p, 100) == NULL && errno == EINVAL);
    errno = 5;
    ak_heap_free(other, p);
    ak_heap_free(other, large);
    ak_heap_free(heap, backends);
    ak_heap_free(heap, opaque_pointer(&local));
    ak_heap_free(heap, p + 1);
    ak_free(opaque_pointer(large + 64));
    CHECK(errno == 5 && ak_fault_count() == had + 7);
    CHECK(strcmp(p, "kept") == 0 && stats_of(heap).block_count == 2 && ak_heap_check(heap) == 0);
    void *again = opaque_pointer(p), *twice = opaque_pointer(p), *thrice = opaque_pointer(p);
    ak_heap_free(heap, p);
    ak_heap_free(heap, again);
    ak_free(again);
    CHECK(ak_fault_count() == had + 9);
    errno = 0;
    CHECK(ak_realloc(twice, 10) == NULL && errno == EINVAL && ak_usable_size(thrice) == 0);
    CHECK(ak_fault_count() == had + 11);
    ak_heap_free(heap, large);
    ak_free(opaque_pointer(large));
    CHECK(ak_fault_count() == had + 12 && stats_of(heap).block_count == 0);
    p = (char *)ak_heap_alloc(heap, 20);
    CHECK(ak_heap_destroy(heap));
    ak_free(opaque_pointer(p));
    CHECK(ak_fault_count() == had + 13);
    errno = 0;
    CHECK(ak_heap_alloc(heap, 1) == NULL && errno == EINVAL && !ak_heap_destroy(heap) && ak_fault_count() == had + 15);
    ak_free(backends);
    CHECK(ak_heap_destroy(other) && ak_fault_count() == had + 15);
}

CHILD(child_heap_misuse) {
    const char *which = getenv("MISUSE");
    ak_heap_t *heap = heap_of("requests", 0, NULL);
    void *p = ak_heap_alloc(heap, 32), *again = opaque_pointer(p);
    if (strcmp(which, "free") == 0) {
        ak_heap_free(heap, p);
        ak_heap_free(heap, again);
    } else if (strcmp(which, "general") == 0) {
        ak_free(p);
        ak_free(again);
    } else {
        ak_heap_t *child = heap_of("child", 0, heap);
        CHECK(child != NULL && !ak_heap_destroy(heap));
    }
}

TEST(heap_reports_name_both_places) {
    static const char *const policies[] = {"abort", "report", "quiet"};
    static const char *const misuse[] = {"free", "general", "destroy"};
    static const char *const texts[] = {"in heap \"requests\": double free", "in heap \"requests\": double free",
                                        "allokit: destroy in heap \"requests\": it is the parent of heaps that live"};
    static child_result_t result;
    for (int m = 0; m < 3; m++)
        for (int i = 0; i < 3; i++) {
            char policy[64], which[64];
            snprintf(policy, sizeof policy, "ALLOKIT_POLICY=%s", policies[i]);
            snprintf(which, sizeof which, "MISUSE=%s", misuse[m]);
            const char *environment[3];
            environment[0] = policy;
            environment[1] = which;
            environment[2] = NULL;
            run_child("child_heap_misuse", environment, 0, &result);
            CHECK_MSG((i == 0) == (WIFSIGNALED(result.status) != 0), "%s %s: status 0x%x: %s", policies[i], misuse[m],
                      (unsigned)result.status, result.err);
            CHECK_MSG((i < 2) == (strstr(result.err, texts[m]) != NULL), "%s: %s", policies[i], result.err);
#ifdef AK_TRACK
            if (i < 2) {
                CHECK_MSG(strstr(result.err, "  heap made at ") != NULL && strstr(result.err, "heaps.c:") != NULL, "%s",
                          result.err);
                if (m != 1 || is_tracked())
                    CHECK_MSG(strstr(result.err, m == 2 ? "  destroy at " : "  free at ") != NULL, "%s", result.err);
            }
#endif
        }
}

/* ---- arenas in a heap ----------------------------------------------------------------------------------------------- */

TEST(heap_of_an_arena) {
    uint64_t had = faults();
    ak_heap_t *heap = heap_of("arenas", 200000, NULL);
    ak_arena_opts_t opts;
    memset(&opts, 0, sizeof opts);
    opts.struct_size = sizeof opts;
    opts.heap = heap;
    ak_arena_t *a = ak_arena_new(&opts), *child = ak_arena_child(a, NULL);
    CHECK(a != NULL && child != NULL);
    char *p = (char *)ak_arena_alloc(a, 1000);
    CHECK(p != NULL && ak_heap_owns(heap, p) && ak_heap_owns(heap, ak_arena_alloc(child, 10)));
    ak_arena_stats_t st;
    st.struct_size = sizeof st;
    CHECK(ak_arena_stats(a, &st) && stats_of(heap).current_bytes >= st.reserved_bytes);
    errno = 0;
    CHECK(!ak_heap_reset(heap) && errno == EINVAL && !ak_heap_destroy(heap) && ak_fault_count() == had + 2);
    memset(p, 1, 1000);
    size_t count = 0;
    errno = 0;
    while (ak_arena_alloc(a, 5000) != NULL) count++;
    CHECK(errno == ENOMEM && count >= 15 && count < 40 && stats_of(heap).total_bytes <= 200000);
    ak_arena_reset(a);
    CHECK(!ak_heap_destroy(heap));
    ak_arena_destroy(a);
    CHECK(stats_of(heap).block_count == 0 && ak_fault_count() == had + 3);
    /* Two owners, and a heap that has ended. */
    ak_arena_t *plain = ak_arena_new(NULL);
    errno = 0;
    opts.parent = plain;
    CHECK(ak_arena_new(&opts) == NULL && errno == EINVAL && ak_arena_child(plain, &opts) == NULL);
    opts.parent = NULL;
    opts.flags = AK_ARENA_FIXED;
    CHECK(ak_arena_new(&opts) == NULL);
    opts.flags = 0;
    /* A caller that was compiled before the field existed. */
    opts.struct_size = offsetof(ak_arena_opts_t, heap);
    ak_arena_t *old = ak_arena_new(&opts);
    CHECK(old != NULL && !ak_heap_owns(heap, ak_arena_alloc(old, 10)));
    ak_arena_destroy(old);
    opts.struct_size = sizeof opts;
    CHECK(ak_heap_destroy(heap) && ak_fault_count() == had + 3);
    CHECK(ak_arena_new(&opts) == NULL && ak_fault_count() == had + 4);
    ak_arena_destroy(plain);
}

/* ---- Lua's contract ------------------------------------------------------------------------------------------------- */

TEST(heap_lua_alloc) {
    ak_heap_t *heap = heap_of("lua", 20000, NULL);
    /* For a NULL block osize is a type's number, which may be anything. */
    char *p = (char *)ak_lua_alloc(heap, NULL, SIZE_MAX, 100);
    CHECK(p != NULL && is_aligned(p, 16));
    memset(p, 9, 100);
    CHECK(ak_lua_alloc(heap, NULL, 5, 0) == NULL && stats_of(heap).block_count == 1);
    p = (char *)ak_lua_alloc(heap, p, 100, 15000);
    CHECK(p != NULL && p[99] == 9);
    CHECK(ak_lua_alloc(heap, NULL, 8, 10000) == NULL);
    CHECK(ak_lua_alloc(heap, p, 15000, 30000) == NULL && p[99] == 9);
    /* No smaller size is refused, however full the heap is. */
    while (ak_lua_alloc(heap, NULL, 4, 40) != NULL) {
    }
    for (size_t size = 15000; size > 10; size -= size / 7 + 1) {
        char *q = (char *)ak_lua_alloc(heap, p, size, size - size / 7 - 1);
        CHECK(q != NULL && q[0] == 9);
        p = q;
    }
    CHECK(ak_lua_alloc(heap, p, 10, 0) == NULL);
    CHECK(ak_heap_check(heap) == 0 && ak_heap_destroy(heap) && ak_fault_count() == 0);
}

/* ---- threads -------------------------------------------------------------------------------------------------------- */

enum { THREADS = 4, ROUNDS = 30000, SLOTS = 256 };
static ak_heap_t *shared[3];
static void *slots[SLOTS];
static volatile int stop;

static void *churn(void *arg) {
    uint64_t random = 1 + (uintptr_t)arg * 2;
    for (int i = 0; i < ROUNDS; i++) {
        uint64_t r = random_next(&random);
        ak_heap_t *heap = shared[r % 3];
        size_t size = (r >> 8) % (r % 64 == 0 ? 40000 : 400) + sizeof(size_t);
        size_t *p = (size_t *)ak_heap_alloc(heap, size);
        if (p == NULL) continue; /* a limit */
        memset(p, (int)(size & 0x7f), size);
        *p = size;
        if (r % 5 == 0) {
            size_t more = size + (r >> 20) % 2000;
            size_t *q = (size_t *)(r % 2 ? ak_realloc(p, more) : ak_heap_realloc(heap, p, more));
            if (q != NULL) p = q;
        }
        /* Somebody's block of some heap, freed by whoever finds it. */
        size_t *old = (size_t *)__atomic_exchange_n(&slots[(r >> 32) % SLOTS], p, __ATOMIC_ACQ_REL);
        if (old == NULL) continue;
        size = *old;
        for (size_t at = sizeof(size_t); at < size; at++) CHECK(((char *)old)[at] == (char)(size & 0x7f));
        ak_free(old);
    }
    return NULL;
}

TEST(heap_threads) {
    pthread_t threads[THREADS];
    shared[0] = heap_of("top", 8 << 20, NULL);
    shared[1] = heap_of("below", 1 << 20, shared[0]);
    shared[2] = heap_of("alone", 0, NULL);
    for (int i = 0; i < THREADS; i++) CHECK(pthread_create(&threads[i], NULL, churn, (void *)(uintptr_t)i) == 0);
    for (int i = 0; i < THREADS; i++) CHECK(pthread_join(threads[i], NULL) == 0);
    for (int i = 0; i < 3; i++) CHECK(ak_heap_check(shared[i]) == 0);
    for (int i = 0; i < SLOTS; i++) ak_free(slots[i]);
    for (int i = 2; i >= 0; i--) {
        ak_heap_stats_t st = stats_of(shared[i]);
        CHECK(st.current_bytes == 0 && st.block_count == 0 && (i == 0) == (st.child_count == 1 && i == 0));
        CHECK(ak_heap_check(shared[i]) == 0);
    }
    CHECK(stats_of(shared[0]).total_bytes == 0);
    CHECK(ak_heap_destroy(shared[1]) && ak_heap_destroy(shared[0]) && ak_heap_destroy(shared[2]));
    CHECK(ak_fault_count() == 0);
}

static void *many(void *arg) {
    for (int i = 0; i < 2000; i++) {
        ak_heap_t *heap = heap_of("short", 1 << 16, (ak_heap_t *)arg);
        for (int j = 0; j < 20; j++) {
            char *p = (char *)ak_heap_alloc(heap, (size_t)(i + j * 97) % 3000);
            CHECK(p != NULL);
            if (j % 3 == 0) ak_free(p);
        }
        CHECK(ak_heap_destroy(heap));
    }
    return NULL;
}

TEST(heap_threads_make_and_destroy) {
    pthread_t threads[THREADS];
    ak_heap_t *parent = heap_of("parent", 1 << 20, NULL);
    for (int i = 0; i < THREADS; i++) CHECK(pthread_create(&threads[i], NULL, many, parent) == 0);
    for (int i = 0; i < THREADS; i++) CHECK(pthread_join(threads[i], NULL) == 0);
    CHECK(stats_of(parent).total_bytes == 0 && stats_of(parent).child_count == 0 && ak_heap_destroy(parent));
}

static void *busy(void *arg) {
    uint64_t random = 3 + (uintptr_t)arg;
    while (!stop) {
        void *p = ak_heap_alloc(shared[0], random_next(&random) % 9000), *q = ak_heap_alloc(shared[1], 30000);
        ak_heap_t *heap = heap_of("own", 0, shared[0]);
        void *r = ak_heap_alloc(heap, 100);
        ak_free(p);
        ak_heap_free(heap, r);
        ak_heap_destroy(heap);
        ak_free(q);
    }
    return NULL;
}

/* One that has a heap to itself, and so is in it without its lock. */
static ak_heap_t *alone;
static void *busy_alone(void *argument) {
    (void)argument;
    while (!stop) {
        void *block = ak_heap_alloc(alone, 64), *other = ak_heap_alloc(alone, 500);
        ak_heap_free(alone, block);
        ak_heap_free(alone, other);
    }
    return NULL;
}

TEST(heap_fork_with_threads) {
    pthread_t threads[3];
    if (is_emulated()) SKIP("emulated threads and fork");
    shared[0] = heap_of("first", 0, NULL);
    shared[1] = heap_of("second", 0, NULL);
    alone = heap_of("alone", 0, NULL);
    char *kept = (char *)ak_heap_strdup(shared[0], "kept");
    CHECK(pthread_create(&threads[2], NULL, busy_alone, NULL) == 0);
    for (int i = 0; i < 2; i++) CHECK(pthread_create(&threads[i], NULL, busy, (void *)(uintptr_t)i) == 0);
    for (int i = 0; i < 150; i++) {
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            alarm(20);
            char *p = (char *)ak_heap_alloc(shared[0], 5000), *q = (char *)ak_heap_alloc(shared[1], 100000);
            ak_heap_t *heap = heap_of("child", 0, shared[1]);
            char *r = (char *)ak_heap_strdup(heap, kept);
            bool well = p != NULL && q != NULL && strcmp(r, "kept") == 0 && ak_heap_check(shared[0]) == 0;
            ak_free(p);
            ak_free(q);
            ak_free(kept);
            well = well && ak_heap_check(alone) == 0 && ak_heap_alloc(alone, 64) != NULL && ak_heap_destroy(alone);
            well = well && ak_heap_destroy(heap) && ak_heap_check(shared[1]) == 0 && ak_heap_reset(shared[1]);
            _exit(well ? 0 : 1);
        }
        int status = 0;
        CHECK(waitpid(child, &status, 0) == child);
        CHECK_MSG(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the child ended with status 0x%x", (unsigned)status);
    }
    stop = 1;
    for (int i = 0; i < 3; i++) CHECK(pthread_join(threads[i], NULL) == 0);
    CHECK(stats_of(alone).block_count == 0 && ak_heap_check(alone) == 0 && ak_heap_destroy(alone));
    ak_free(kept);
    CHECK(stats_of(shared[0]).block_count == 0 && ak_heap_destroy(shared[0]) && ak_heap_destroy(shared[1]));
}

/* ---- memory --------------------------------------------------------------------------------------------------------- */

TEST(heap_ten_thousand) {
    enum { COUNT = 10000 };
    static ak_heap_t *heaps[COUNT];
    if (is_emulated()) SKIP("memory of an emulator");
    size_t before = resident_bytes();
    for (int i = 0; i < COUNT; i++) {
        heaps[i] = heap_of("one of many", 1 << 20, NULL);
        for (int j = 1; j < 20; j++) memset(ak_heap_alloc(heaps[i], (size_t)j * 10), i, (size_t)j * 10);
    }
    size_t each = (resident_bytes() - before) / COUNT;
    CHECK_MSG(each < 20000, "%zu bytes a heap", each);
    for (int i = 0; i < COUNT; i++) CHECK(ak_heap_destroy(heaps[i]));
    size_t left = resident_bytes() - before;
    /* Records, some of what was used lately, and what the backend keeps of the tracker's blocks. */
    CHECK_MSG(left < (56u << 20), "%zu bytes are left", left);
}

TEST(heap_leaks_are_found) {
    if (!is_tracked()) SKIP("tracking is off");
    ak_mark();
    ak_heap_t *heap = heap_of("leaked", 0, NULL);
    ak_free(ak_heap_alloc(heap, 100));
    capture_begin();
    size_t count = ak_leaks_print();
    const char *text = capture_end();
    CHECK_MSG(count >= 1, "%zu: %s", count, text);
#ifdef AK_TRACK
    CHECK_MSG(strstr(text, "heaps.c") != NULL, "%s", text);
#endif
    CHECK(ak_heap_destroy(heap) && ak_assert_balanced("heaps") && ak_fault_count() == 0);
}

/* ---- statistics ----------------------------------------------------------------------------------------------------- */

static char stats_text[20000];
static size_t stats_length;
static void keep_text(const char *piece, size_t length, void *argument) {
    (void)argument;
    if (length > sizeof stats_text - 1 - stats_length) length = sizeof stats_text - 1 - stats_length;
    memcpy(stats_text + stats_length, piece, length);
    stats_length += length;
    stats_text[stats_length] = 0;
}

static void write_stats(ak_format_t format) {
    stats_length = 0;
    CHECK(ak_stats_write(format, keep_text, NULL));
}

TEST(heap_and_arenas_in_the_statistics) {
    write_stats(AK_TEXT);
    CHECK_MSG(strstr(stats_text, "\n  heaps  ") == NULL && strstr(stats_text, "\n  pools  ") == NULL, "%s", stats_text);
    ak_heap_t *heap = heap_of("counted", 0, NULL);
    void *block = ak_heap_alloc(heap, 1000);
    ak_arena_t *arena = ak_arena_new(NULL), *child = ak_arena_child(arena, NULL);
    ak_region_t *region = ak_region_new(10000);
    ak_pool_t *pool = ak_pool_new(64, NULL);
    ak_stack_t *stack = ak_stack_new(5000, NULL);
    CHECK(block != NULL && child != NULL && region != NULL && pool != NULL && stack != NULL);
    CHECK(ak_arena_alloc(arena, 100) != NULL);
    char row[200];
    snprintf(row, sizeof row, "\n  heaps              1 live          16384 bytes, %zu used, peak 16384\n", ak_usable_size(block));
    write_stats(AK_TEXT);
    CHECK_MSG(strstr(stats_text, row) != NULL, "no %s in %s", row, stats_text);
    CHECK_MSG(strstr(stats_text, "\n  arenas             2 live ") != NULL && strstr(stats_text, "\n  regions            1 live ") != NULL
                  && strstr(stats_text, "\n  pools              1 live ") != NULL && strstr(stats_text, "\n  stacks             1 live ") != NULL,
              "%s", stats_text);
    write_stats(AK_JSON);
    CHECK_MSG(strstr(stats_text, "\"arena\":{\"live\":2,\"reserved_bytes\":") != NULL
                  && strstr(stats_text, "\"heap\":{\"live\":1,\"reserved_bytes\":16384,\"used_bytes\":") != NULL,
              "%s", stats_text);
    write_stats(AK_PROMETHEUS);
    CHECK_MSG(strstr(stats_text, "kind=\"region\"} 1\n") != NULL && strstr(stats_text, "\n# TYPE allokit_owners_peak_bytes gauge\n") != NULL,
              "%s", stats_text);
    ak_arena_destroy(arena);
    ak_region_destroy(region);
    ak_pool_destroy(pool);
    ak_stack_destroy(stack);
    CHECK(ak_heap_destroy(heap));
    write_stats(AK_TEXT);
    CHECK_MSG(strstr(stats_text, "\n  heaps              0 live              0 bytes, 0 used, peak 16384\n") != NULL
                  && strstr(stats_text, "\n  arenas             0 live              0 bytes, unknown used, peak ") != NULL
                  && strstr(stats_text, "\n  stacks             0 live              0 bytes, ") != NULL,
              "%s", stats_text);
    CHECK(ak_fault_count() == 0);
}

TEST(heap_requests_fail_on_purpose) {
    ak_fail_filter_t only;
    ak_arena_opts_t opts;
    memset(&only, 0, sizeof only);
    memset(&opts, 0, sizeof opts);
    only.struct_size = sizeof only;
    opts.struct_size = sizeof opts;
    if (!ak_fail_nth(0) || !ak_fail_only(NULL) || (!ak_fail_nth(1) && errno == ENOTSUP)) SKIP("not in this build");
    CHECK(ak_fail_nth(0));
    ak_heap_t *heap = ak_heap_new(NULL), *other = ak_heap_new(NULL);
    CHECK(heap != NULL && other != NULL);
    for (int i = 0; i < 100; i++) ak_heap_free(heap, ak_heap_alloc(heap, opaque_size(40))); /* it has its owner by now */
    char *kept = (char *)ak_heap_alloc(heap, 100);
    pattern_fill(kept, 100, 3);
    only.heap = heap;
    only.times = UINT64_MAX;
    CHECK(ak_fail_only(&only) && ak_fail_nth(2));
    void *block = ak_heap_alloc(heap, opaque_size(40));
    CHECK(block != NULL);
    errno = 0;
    CHECK(ak_heap_alloc(heap, opaque_size(40)) == NULL && errno == ENOMEM);
    CHECK(ak_heap_calloc(heap, 3, 4) == NULL && ak_heap_alloc_aligned(heap, 10, 64) == NULL);
    CHECK(ak_heap_strdup(heap, "text") == NULL && ak_heap_strndup(heap, "text", 2) == NULL);
    CHECK(ak_heap_memdup(heap, "text", 2) == NULL && ak_lua_alloc(heap, NULL, 0, 10) == NULL);
    CHECK(ak_heap_realloc(heap, kept, 100000) == NULL && pattern_holds(kept, 100, 3));
    opts.heap = heap;
    CHECK(ak_arena_new(&opts) == NULL);
    CHECK(ak_fail_count() == 9 && ak_fail_seen() == 10);
    ak_heap_free(heap, block);
    ak_free(kept);
    /* Others are not meant. */
    block = ak_heap_alloc(other, 10);
    CHECK(block != NULL);
    ak_free(block);
    block = ak_alloc(10);
    CHECK(block != NULL && ak_fail_seen() == 10);
    ak_free(block);
    CHECK(ak_fail_nth(0) && ak_fail_only(NULL));
    for (int i = 0; i < 100; i++) ak_heap_free(heap, ak_heap_alloc(heap, opaque_size(40)));
    CHECK(stats_of(heap).block_count == 0);
    CHECK(ak_heap_destroy(heap) && ak_heap_destroy(other));
}

TEST(heap_first_block_of_many_mib) {
    ak_heap_t *heap = ak_heap_new(NULL);
    CHECK(heap != NULL && ak_heap_alloc(heap, (size_t)10 << 20) != NULL);
    CHECK(ak_heap_destroy(heap));
}

TEST(heap_memory_counts_against_the_limit_of_the_process) {
    void *first = ak_alloc(10);
    if (!ak_limit_set((size_t)1 << 40)) SKIP("not in this build");
    CHECK(ak_limit_set(ak_limit_used() + ((size_t)24 << 20)));
    ak_heap_t *heap = ak_heap_new(NULL);
    CHECK(heap != NULL);
    errno = 0;
    CHECK(ak_heap_alloc(heap, (size_t)25 << 20) == NULL && errno == ENOMEM);
    CHECK(ak_heap_alloc(heap, (size_t)20 << 20) != NULL);
    void *block = ak_alloc(opaque_size((size_t)8 << 20));
    CHECK(block == NULL && errno == ENOMEM);
    CHECK(ak_heap_reset(heap));
    block = ak_alloc(opaque_size((size_t)20 << 20));
    CHECK(block != NULL && ak_heap_alloc(heap, (size_t)8 << 20) == NULL);
    ak_free(block);
    CHECK(ak_heap_alloc(heap, (size_t)8 << 20) != NULL);
    CHECK(ak_limit_set(0) && ak_heap_alloc(heap, (size_t)64 << 20) != NULL);
    CHECK(ak_heap_destroy(heap));
    ak_free(first);
}
