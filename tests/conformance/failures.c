/*
 * failures.c - a limit of the process, and requests that fail on purpose.
 */
#include "check.h"

/* Both hold from build to build: where they cannot, the functions say so, and nothing else changes. */
static bool can_fail(void) {
    errno = 0;
    if (ak_fail_nth(1)) return ak_fail_nth(0);
    CHECK(errno == ENOTSUP);
    CHECK(!ak_fail_rate(1, 1) && errno == ENOTSUP);
    ak_fail_filter_t only;
    memset(&only, 0, sizeof only);
    only.struct_size = sizeof only;
    CHECK(!ak_fail_only(&only) && errno == ENOTSUP);
    CHECK(ak_fail_nth(0) && ak_fail_rate(0, 0) && ak_fail_only(NULL));
    CHECK(ak_fail_seen() == 0 && ak_fail_count() == 0);
    void *block = ak_alloc(10);
    CHECK(block != NULL);
    ak_free(block);
    return false;
}

static bool can_limit(void) {
    errno = 0;
    if (ak_limit_set((size_t)1 << 40)) return ak_limit_set(0);
    CHECK(errno == ENOTSUP && ak_limit_get() == 0);
    return false;
}

static bool failed(void *block) {
    bool is = block == NULL && errno == ENOMEM;
    if (block == NULL) CHECK(is);
    errno = 0;
    ak_free(block);
    return is;
}

/* Each of the functions, one request each. */
enum { KINDS = 11 };
static bool request(int kind, void **old) {
    void *block;
    errno = 0;
    switch (kind) {
    case 0: return failed(ak_alloc(opaque_size(20)));
    case 1: return failed(ak_calloc(opaque_size(3), 7));
    case 2: return failed(ak_alloc_aligned(opaque_size(30), 64));
    case 3: return failed(ak_calloc_aligned(opaque_size(3), 9, 256));
    case 4: return failed(ak_strdup("a text"));
    case 5: return failed(ak_strndup("a text", 3));
    case 6: return failed(ak_memdup("a text", 4));
    case 7: return failed(ak_realloc(NULL, opaque_size(40)));
    case 8: return failed(ak_alloc_at(opaque_size(50), "there.c", 7));
    case 9: block = ak_realloc(*old, opaque_size(5000)); break;
    default: block = ak_reallocarray(*old, opaque_size(10), 2); break;
    }
    if (block == NULL) {
        CHECK(errno == ENOMEM);
        return true;
    }
    *old = block;
    return false;
}

TEST(the_nth_request_fails_of_every_kind) {
    if (!can_fail()) SKIP("not in this build");
    for (uint64_t n = 1; n <= KINDS + 1; n++) {
        void *old = ak_alloc(100);
        CHECK(old != NULL);
        pattern_fill(old, 10, 7);
        CHECK(ak_fail_nth(n));
        for (int kind = 0; kind < KINDS; kind++) {
            bool is = request(kind, &old);
            CHECK_MSG(is == (n == (uint64_t)kind + 1), "request %d of kind %d, the failing one is %d", kind + 1, kind, (int)n);
        }
        CHECK(ak_fail_seen() == KINDS && ak_fail_count() == (n <= KINDS));
        CHECK(ak_fail_nth(0) && ak_fail_seen() == 0);
        ak_free(old);
    }
    /* What never was a request does not count, and the old block of a failed realloc is as it was. */
    void *old = ak_alloc(64);
    CHECK(old != NULL);
    pattern_fill(old, 64, 9);
    CHECK(ak_fail_nth(1));
    CHECK(ak_alloc_aligned(10, opaque_size(3)) == NULL && errno == EINVAL);
    CHECK(ak_calloc(opaque_size(SIZE_MAX), 2) == NULL && ak_strdup(NULL) == NULL);
    ak_free(NULL);
    CHECK(ak_fail_seen() == 0);
    CHECK(ak_realloc(old, opaque_size(100000)) == NULL && pattern_holds(old, 64, 9) && ak_usable_size(old) >= 64);
    CHECK(ak_realloc(old, 0) == NULL && ak_fail_seen() == 1);
    CHECK(ak_fail_nth(0));
}

static uint64_t failures_of(uint32_t rate, uint64_t seed) {
    uint64_t bits = 0;
    CHECK(ak_fail_rate(rate, seed));
    for (int i = 0; i < 64; i++) bits = bits << 1 | failed(ak_alloc(opaque_size(10)));
    CHECK(ak_fail_seen() == (rate != 0 ? 64 : 0));
    CHECK(ak_fail_rate(0, 0));
    return bits;
}

TEST(a_rate_with_a_seed_fails_the_same_each_time) {
    if (!can_fail()) SKIP("not in this build");
    CHECK(failures_of(0, 1) == 0 && failures_of(1000000, 1) == UINT64_MAX);
    uint64_t one = failures_of(300000, 1), other = failures_of(300000, 2);
    CHECK(one != other && one != 0 && one == failures_of(300000, 1) && other == failures_of(300000, 2));
    errno = 0;
    CHECK(!ak_fail_rate(1000001, 0) && errno == EINVAL);
}

TEST(a_filter_says_which_requests_are_meant) {
    if (!can_fail()) SKIP("not in this build");
    ak_fail_filter_t only;
    memset(&only, 0, sizeof only);
    only.struct_size = sizeof only;
    only.min_size = 100;
    only.max_size = 200;
    only.times = 2;
    CHECK(ak_fail_only(&only) && ak_fail_nth(2));
    CHECK(!failed(ak_alloc(opaque_size(99))) && !failed(ak_alloc(opaque_size(100))) && !failed(ak_alloc(opaque_size(201))));
    CHECK(failed(ak_alloc(opaque_size(200))) && failed(ak_alloc(opaque_size(150))) && !failed(ak_alloc(opaque_size(150))));
    CHECK(ak_fail_seen() == 4 && ak_fail_count() == 2);
    /* By place: the whole path, or whole names at its end. */
    only.min_size = only.max_size = 0;
    only.times = UINT64_MAX;
    const char *const files[] = {"/src/a/b.c", "a/b.c", "b.c"};
    for (int i = 0; i < 3; i++) {
        only.file = files[i];
        only.line = i == 2 ? 12 : 0;
        CHECK(ak_fail_only(&only) && ak_fail_nth(1));
        CHECK(failed(ak_alloc_at(opaque_size(9), "/src/a/b.c", 12)));
        CHECK(failed(ak_alloc_at(opaque_size(9), "/src/a/b.c", 13)) == (i != 2));
        CHECK(!failed(ak_alloc_at(opaque_size(9), "/src/a/xb.c", 12)) && !failed(ak_alloc_at(opaque_size(9), "c", 12)));
        CHECK(!failed(ak_alloc(opaque_size(9))));
    }
#ifdef AK_TRACK
    only.file = NULL;
    only.line = 0;
    only.function = __func__;
    CHECK(ak_fail_only(&only) && ak_fail_nth(1));
    CHECK(failed(ak_alloc(opaque_size(9))) && !failed(ak_alloc_at(opaque_size(9), "b.c", 1)));
#endif
    CHECK(ak_fail_only(NULL) && ak_fail_nth(0));
    char longest[300];
    memset(longest, 'x', sizeof longest - 1);
    longest[sizeof longest - 1] = 0;
    memset(&only, 0, sizeof only);
    only.struct_size = sizeof only;
    only.file = longest;
    errno = 0;
    CHECK(!ak_fail_only(&only) && errno == EINVAL);
}

static void *churn(void *arg) {
    (void)arg;
    for (int i = 0; i < 20000; i++) {
        void *block = ak_alloc(opaque_size(50)), *more;
        more = ak_realloc(block, opaque_size(500));
        if (more != NULL) block = more;
        ak_free(block);
    }
    return NULL;
}

TEST(failures_come_and_go_while_threads_run) {
    if (!can_fail()) SKIP("not in this build");
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) CHECK(pthread_create(&threads[i], NULL, churn, NULL) == 0);
    for (int i = 0; i < 50; i++) {
        CHECK(ak_fail_rate(100000, (uint64_t)i));
        CHECK(ak_fail_nth(3));
        usleep(200);
        CHECK(ak_fail_nth(0) && ak_fail_rate(0, 0));
    }
    for (int i = 0; i < 4; i++) CHECK(pthread_join(threads[i], NULL) == 0);
    void *block = ak_alloc(10);
    CHECK(block != NULL);
    ak_free(block);
}

TEST(a_limit_is_hard) {
    if (!can_limit()) SKIP("not in this build");
    if (is_emulated()) SKIP("too slow under emulation");
    static void *blocks[400000];
    const size_t sizes[] = {100, 3000, 100000, 1 << 20};
    void *first = ak_alloc(10);
    CHECK(first != NULL);
    size_t start = ak_limit_used(), limit = start + ((size_t)24 << 20);
    CHECK(ak_limit_set(limit) && ak_limit_get() == limit);
    /* (Elsewhere than on native what is live counts only from here on.) */
    if (!is_backend("native")) {
        start = ak_limit_used();
        limit = start + ((size_t)24 << 20);
        CHECK(ak_limit_set(limit));
    }
    for (int round = 0; round < 4; round++) {
        size_t count = 0, size = sizes[round];
        while (count < 400000 && (blocks[count] = ak_alloc(opaque_size(size))) != NULL) {
            memset(blocks[count], 1, 8);
            count++;
        }
        CHECK(errno == ENOMEM && count < 400000);
        CHECK_MSG(count * size <= limit && ak_limit_used() <= limit, "%zu blocks of %zu, %zu used", count, size, ak_limit_used());
        CHECK_MSG(count * size >= (size_t)16 << 20, "only %zu blocks of %zu", count, size);
        CHECK(ak_realloc(blocks[0], opaque_size((size_t)64 << 20)) == NULL && errno == ENOMEM);
        while (count > 0) ak_free(blocks[--count]);
    }
    CHECK(failed(ak_calloc(opaque_size(25), 1 << 20)));
    CHECK(ak_limit_set(1) && failed(ak_alloc(opaque_size((size_t)1 << 20))));
    CHECK(ak_limit_set(0) && ak_limit_get() == 0);
    CHECK(!failed(ak_alloc(opaque_size((size_t)64 << 20))));
    ak_free(first);
}

CHILD(limited_by_the_environment) {
    CHECK(ak_limit_get() == (size_t)16 << 20);
    CHECK(failed(ak_alloc(opaque_size((size_t)17 << 20))) && !failed(ak_alloc(opaque_size((size_t)4 << 20))));
}

CHILD(failing_by_the_environment) {
    CHECK(!failed(ak_alloc(opaque_size(777))) && failed(ak_alloc(opaque_size(777))) && failed(ak_alloc(opaque_size(777))));
    CHECK(!failed(ak_alloc(opaque_size(776))) && ak_fail_seen() == 3 && ak_fail_count() == 2);
}

TEST(the_environment_sets_limits_and_failures) {
    static child_result_t result;
    const char *const limit[] = {"ALLOKIT_LIMIT=16M", NULL};
    const char *const fail[] = {"ALLOKIT_FAIL_NTH=2+", "ALLOKIT_FAIL_ONLY=777-777", NULL};
    const char *const wrong[] = {"ALLOKIT_LIMIT=lots", "ALLOKIT_FAIL_NTH=2", "ALLOKIT_FAIL_ONLY=,", NULL};
    if (can_limit()) {
        run_child("limited_by_the_environment", limit, 0, &result);
        CHECK_CHILD_OK(result);
    }
    if (!can_fail()) SKIP("not in this build");
    run_child("failing_by_the_environment", fail, 0, &result);
    CHECK_CHILD_OK(result);
    run_child("limited_by_the_environment", wrong, 0, &result);
    CHECK(strstr(result.err, "ALLOKIT_LIMIT=lots is not known") != NULL && strstr(result.err, "ALLOKIT_FAIL_ONLY=, is not known") != NULL);
}
