/*
 * sites.c - call sites and balance: who allocated what, by file and line, by the carried file and line of `_at`, or by
 * return address. Without tracking: that the library says what it cannot know.
 */
#include "check.h"

#include <inttypes.h>

#if defined(AK_TRACK)
enum { COMPILED_WITH_SITES = 1 };
#else
enum { COMPILED_WITH_SITES = 0 };
#endif

static const char *leaks(size_t *count) {
    capture_begin();
    size_t blocks = ak_leaks_print();
    const char *printed = capture_end();
    if (count != NULL) *count = blocks;
    return printed;
}

/* The line of a leak list for a call site of this file when AK_TRACK is on; else, that it names this program. */
static void check_leak(const char *list, unsigned count, unsigned bytes, unsigned line, const char *function) {
    char expected[300];
    if (COMPILED_WITH_SITES) {
        snprintf(expected, sizeof expected, "\n  %14u  %12u  %s:%u (%s)\n", count, bytes, __FILE__, line, function);
    } else {
        snprintf(expected, sizeof expected, "\n  %14u  %12u  ", count, bytes);
    }
    CHECK_MSG(strstr(list, expected) != NULL, "no line \"%s\" in: %s", expected, list);
}

TEST(no_leaks) {
    if (!is_tracked()) SKIP("tracking is off");
    size_t blocks;
    const char *printed = leaks(&blocks);
    CHECK_MSG(blocks == 0 && strcmp(printed, "allokit: no live blocks\n") == 0, "%zu: %s", blocks, printed);
}

/* opaque_pointer: a tail call would have the return address of its caller. */
static __attribute__((noinline)) void *make(size_t size) { return opaque_pointer(ak_alloc(size)); }
enum { MAKE_LINE = __LINE__ - 1 };

TEST(leaks_are_grouped_by_call_site) {
    if (!is_tracked()) SKIP("tracking is off");
    void *made[3];
    for (int i = 0; i < 3; i++) made[i] = make(400);
    void *one = ak_calloc(2, 17);
    unsigned line = __LINE__ - 1;
    size_t blocks;
    const char *printed = leaks(&blocks);
    CHECK(blocks == 4);
    const char *header = "allokit: 4 live blocks, 1234 bytes, from 2 call sites\n           count         bytes  call site\n";
    CHECK_MSG(strncmp(printed, header, strlen(header)) == 0, "printed: %s", printed);
    check_leak(printed, 3, 1200, MAKE_LINE, "make");
    check_leak(printed, 1, 34, line, "leaks_are_grouped_by_call_site");
    CHECK_MSG(strstr(printed, " 1200 ") < strstr(printed, " 34 "), "not biggest first: %s", printed);
    ak_free(made[1]);
    ak_free(one);
    printed = leaks(&blocks);
    CHECK(blocks == 2);
    header = "allokit: 2 live blocks, 800 bytes, from 1 call sites\n";
    CHECK_MSG(strncmp(printed, header, strlen(header)) == 0, "printed: %s", printed);
    ak_free(made[0]);
    printed = leaks(&blocks);
    header = "allokit: 1 live blocks, 400 bytes, from 1 call sites\n";
    CHECK_MSG(blocks == 1 && strncmp(printed, header, strlen(header)) == 0, "printed: %s", printed);
    ak_free(made[2]);
    CHECK(strcmp(leaks(NULL), "allokit: no live blocks\n") == 0);
}

#define vex_alloc(n) ak_alloc(n)
#define vex_free(p) ak_free(p)
TEST(a_wrapper_macro_reports_its_user) {
    if (!is_tracked()) SKIP("tracking is off");
    void *block = vex_alloc(77);
    check_leak(leaks(NULL), 1, 77, __LINE__ - 1, "a_wrapper_macro_reports_its_user");
    vex_free(block);
}

/* Every function that hands out a block names its caller, through the macros. */
TEST(every_function_is_attributed) {
    if (!is_tracked()) SKIP("tracking is off");
    const char *me = "every_function_is_attributed";
    void *b[10];
    unsigned first = __LINE__ + 1;
    b[0] = ak_alloc(101);
    b[1] = ak_calloc(1, 102);
    b[2] = ak_calloc_aligned(1, 103, 64);
    b[3] = ak_alloc_aligned(104, 64);
    b[4] = ak_realloc(NULL, 105);
    b[5] = ak_reallocarray(NULL, 1, 106);
    b[6] = ak_reallocarray_aligned(NULL, 1, 107, 64);
    b[7] = ak_memdup("0123456789", 10);
    b[8] = ak_strdup("0123456789a");
    b[9] = ak_strndup("0123456789abcd", 13);
    static const unsigned sizes[10] = {101, 102, 103, 104, 105, 106, 107, 10, 12, 14};
    const char *printed = leaks(NULL);
    for (unsigned i = 0; i < 10; i++) check_leak(printed, 1, sizes[i], first + i, me);
    if (!COMPILED_WITH_SITES) CHECK_MSG(strstr(printed, "(") != NULL && strstr(printed, "+0x") != NULL, "%s", printed);
    for (int i = 0; i < 10; i++) ak_free(b[i]);
    int *typed = AK_ARRAY(int, 25);
    check_leak(leaks(NULL), 1, 100, __LINE__ - 1, me);
    typed = AK_RESIZE(typed, int, 50);
    CHECK(typed != NULL);
    AK_FREE(typed);
}

/* What the carried file and line of the _at functions become: "file:line", with no function. */
static void check_at(unsigned bytes, unsigned line) {
    char expected[200];
    snprintf(expected, sizeof expected, "\n  %14u  %12u  script.lua:%u\n", 1u, bytes, line);
    const char *printed = leaks(NULL);
    CHECK_MSG(strstr(printed, expected) != NULL, "no line \"%s\" in: %s", expected, printed);
}
TEST(at_functions_carry_file_and_line) {
    /* The name lives on the stack and is overwritten: the library must have copied it. */
    char file[16];
    memcpy(file, "script.lua", 11);
    void *b[10];
    b[0] = ak_alloc_at(201, file, 1);
    b[1] = ak_calloc_at(1, 202, file, 2);
    b[2] = ak_calloc_aligned_at(1, 203, 64, file, 3);
    b[3] = ak_alloc_aligned_at(204, 64, file, 4);
    b[4] = ak_realloc_at(NULL, 205, file, 5);
    b[5] = ak_reallocarray_at(NULL, 1, 206, file, 6);
    b[6] = ak_reallocarray_aligned_at(NULL, 1, 207, 64, file, 7);
    b[7] = ak_memdup_at("0123456789", 10, file, 8);
    b[8] = ak_strdup_at("0123456789a", file, 9);
    b[9] = ak_strndup_at("0123456789abcd", 13, file, 10);
    memset(file, '?', sizeof file);
    static const unsigned sizes[10] = {201, 202, 203, 204, 205, 206, 207, 10, 12, 14};
    for (unsigned i = 0; i < 10; i++) {
        CHECK(b[i] != NULL && ak_usable_size_at(b[i], file, 11) >= sizes[i]);
        if (is_tracked()) check_at(sizes[i], i + 1);
    }
    b[0] = ak_realloc_at(b[0], 301, "script.lua", 20);
    CHECK(b[0] != NULL);
    ak_free_at(b[0], "script.lua", 21);
    ak_free_sized_at(b[1], 202, "script.lua", 22);
    for (int i = 2; i < 10; i++) ak_free_at(b[i], NULL, 0); /* no file is allowed */
    void *unnamed = ak_alloc_at(9, NULL, 0);
    CHECK(unnamed != NULL);
    if (is_tracked()) leaks(NULL);
    ak_free(unnamed);
    CHECK(ak_fault_count() == 0);
}

TEST(site_functions_use_the_callers_record) {
    static ak_site_t site = {"generated.vex", "on_start", 42, 0};
    static ak_site_t elsewhere = {"generated.vex", "on_end", 50, 0};
    void *block = ak_alloc_site(55, &site);
    CHECK(block != NULL);
    if (is_tracked())
        CHECK_MSG(strstr(leaks(NULL), "              1            55  generated.vex:42 (on_start)\n") != NULL, "%s", leaks(NULL));
    block = ak_realloc_site(block, 66, &elsewhere);
    CHECK(block != NULL);
    ak_free_site(block, &elsewhere);
    block = ak_calloc_site(1, 10, NULL); /* no record: as the plain function */
    CHECK(block != NULL);
    ak_free_sized_site(block, 10, NULL);
    CHECK(ak_fault_count() == 0);
}

/* A process mixes callers with and without AK_TRACK: the functions in parentheses are always the plain ones. */
TEST(plain_callers_are_attributed_to_their_return_address) {
    if (!is_tracked()) SKIP("tracking is off");
    void *plain = (ak_alloc)(31);
    void *sited = ak_alloc_at(32, "x.c", 1);
    const char *printed = leaks(NULL);
    const char *line = strstr(printed, "              1            31  ");
    CHECK_MSG(line != NULL, "%s", printed);
    const char *place = line + 31;
    const char *end = strchr(place, '\n');
    const char *bracket = strchr(place, '(');
    const char *offset = strstr(place, "+0x");
    CHECK_MSG(end != NULL && bracket != NULL && bracket < end && offset != NULL && offset < end && end[-1] == ')' &&
                  memchr(place, '/', (size_t)(bracket - place)) == NULL,
              "not module(symbol+0x1f): %s", printed);
    ak_free(plain);
    ak_free(sited);
}

TEST(many_call_sites) {
    if (!is_tracked()) SKIP("tracking is off");
    enum { SITES = 3000 };
    static void *blocks[SITES];
    for (unsigned i = 0; i < SITES; i++) {
        blocks[i] = ak_alloc_at(i + 1, "many.c", i + 1);
        CHECK(blocks[i] != NULL);
    }
    size_t count;
    const char *printed = leaks(&count);
    CHECK_MSG(count == SITES, "%zu blocks", count);
    char header[100];
    snprintf(header, sizeof header, "allokit: 3000 live blocks, %u bytes, from 3000 call sites\n", 3000u * 3001 / 2);
    CHECK_MSG(strncmp(printed, header, strlen(header)) == 0, "printed: %.100s", printed);
    CHECK(strstr(printed, "              1          3000  many.c:3000\n") != NULL);
    for (int i = 0; i < SITES; i++) ak_free(blocks[i]);
    CHECK(strcmp(leaks(NULL), "allokit: no live blocks\n") == 0);
}

/* ---- balance ------------------------------------------------------------------------------------------------------ */

static bool balanced(const char *context, const char **printed) {
    capture_begin();
    bool is = ak_assert_balanced(context);
    *printed = capture_end();
    return is;
}

TEST(assert_balanced_sees_blocks_since_the_mark) {
    if (!is_tracked()) SKIP("tracking is off");
    CHECK(ak_policy_set(AK_POLICY_REPORT));
    const char *printed;
    CHECK(balanced("start", &printed) && printed[0] == 0);
    void *old = ak_alloc(500);
    ak_mark();
    CHECK(balanced("after the mark", &printed) && printed[0] == 0);
    void *fresh = ak_alloc(34);
    unsigned line = __LINE__ - 1;
    void *freed = ak_alloc(99);
    ak_free(freed);
    CHECK(!balanced("shutdown", &printed));
    const char *first = "allokit: shutdown: 1 blocks, 34 bytes, live since the mark, from 1 call sites\n";
    CHECK_MSG(strncmp(printed, first, strlen(first)) == 0, "printed: %s", printed);
    check_leak(printed, 1, 34, line, "assert_balanced_sees_blocks_since_the_mark");
    CHECK_MSG(strstr(printed, "500") == NULL, "printed: %s", printed);
    CHECK(!balanced(NULL, &printed));
    first = "allokit: assert_balanced: 1 blocks, 34 bytes, live since the mark, from 1 call sites\n";
    CHECK_MSG(strncmp(printed, first, strlen(first)) == 0, "printed: %s", printed);
    CHECK(ak_policy_set(AK_POLICY_QUIET));
    CHECK(!balanced("quiet", &printed));
    CHECK_MSG(printed[0] == 0, "quiet printed: %s", printed);
    CHECK(ak_policy_set(AK_POLICY_REPORT));
    ak_free(fresh);
    CHECK(balanced("end", &printed) && printed[0] == 0);
    ak_free(old); /* freed although from before the mark: no matter */
    CHECK(balanced("end", &printed) && printed[0] == 0);
    fresh = ak_alloc(8);
    ak_mark(); /* a new stretch begins: what was open before it does not count */
    CHECK(balanced("again", &printed) && printed[0] == 0);
    ak_free(fresh);
}

static void *allocate_in_thread(void *argument) {
    (void)argument;
    return ak_alloc(640);
}
TEST(assert_balanced_sees_other_threads) {
    if (!is_tracked()) SKIP("tracking is off");
    CHECK(ak_policy_set(AK_POLICY_REPORT));
    ak_mark();
    pthread_t thread;
    void *block;
    CHECK(pthread_create(&thread, NULL, allocate_in_thread, NULL) == 0);
    pthread_join(thread, &block);
    const char *printed;
    CHECK(!balanced("threads", &printed));
    ak_free(block);
    CHECK(balanced("threads", &printed));
}

/* ---- tracking off, or left out ------------------------------------------------------------------------------------ */

static const char *why_unknown(void) {
    return getenv("CHECK_NO_TRACK_BUILD") != NULL
               ? "this library was built without tracking (ALLOKIT_TRACK=OFF)\n"
               : "tracking is off (set ALLOKIT_TRACK=sites before the program starts)\n";
}

TEST(untracked_leaks_are_unknown) {
    if (is_tracked()) SKIP("tracking is on");
    void *block = ak_alloc(10);
    size_t count;
    const char *printed = leaks(&count);
    char expected[200];
    snprintf(expected, sizeof expected, "allokit: leaks are unknown: %s", why_unknown());
    CHECK_MSG(count == 0 && strcmp(printed, expected) == 0, "printed: %s", printed);
    ak_mark();
    CHECK(balanced("shutdown", &printed));
    snprintf(expected, sizeof expected, "allokit: shutdown: balance is unknown: %s", why_unknown());
    CHECK_MSG(strcmp(printed, expected) == 0, "printed: %s", printed);
    ak_free(block);
}

/* Whether tracking can be switched on and off while the program runs. */
static bool is_switchable(void) { return is_backend("native") && getenv("CHECK_NO_TRACK_BUILD") == NULL; }

TEST(track_set_after_the_first_allocation) {
    ak_free(ak_alloc(1));
    ak_track_t level = ak_track_get();
    errno = 0;
    CHECK(ak_track_set(level)); /* in force already */
    if (is_switchable()) {
        CHECK(ak_track_set(AK_TRACK_SITES) && is_tracked() && ak_track_set(AK_TRACK_OFF) && !is_tracked());
        CHECK(ak_track_set(level));
    } else if (level == AK_TRACK_OFF) {
        int expected = getenv("CHECK_NO_TRACK_BUILD") != NULL ? ENOTSUP : EBUSY;
        CHECK_MSG(!ak_track_set(AK_TRACK_SITES) && errno == expected, "errno is %d", errno);
    } else {
        CHECK_MSG(!ak_track_set(AK_TRACK_OFF) && errno == EBUSY, "errno is %d", errno);
    }
    errno = 0;
    if (is_switchable() || (level != AK_TRACK_OFF && getenv("CHECK_NO_TRACK_BUILD") == NULL)) {
        /* Between sites and stacks each backend can be switched. */
        CHECK(ak_track_set(AK_TRACK_STACKS) && ak_track_get() == AK_TRACK_STACKS && ak_track_set(level));
    } else {
        int expected = getenv("CHECK_NO_TRACK_BUILD") != NULL ? ENOTSUP : EBUSY;
        CHECK_MSG(!ak_track_set(AK_TRACK_STACKS) && errno == expected, "errno is %d", errno);
    }
    errno = 0;
    CHECK_MSG(!ak_track_set((ak_track_t)opaque_size(77)) && errno == EINVAL, "errno is %d", errno);
    CHECK(ak_track_get() == level);
}

TEST(blocks_live_through_switches) {
    if (!is_switchable()) SKIP("tracking is on or off from the start");
    enum { BLOCKS = 60 };
    static const size_t sizes[] = {0, 1, 24, 25, 100, 5000, 32760, 32761, 70000, 3000000};
    struct {
        void *block;
        size_t size;
        bool tracked;
    } held[BLOCKS] = {{NULL, 0, false}};
    size_t live = 0;
    uint64_t random = 4;
    for (int round = 0; round < 4000; round++) {
        if (round % 37 == 0) CHECK(ak_track_set(round % 2 == 0 ? AK_TRACK_SITES : AK_TRACK_OFF));
        size_t which = (size_t)(random_next(&random) % BLOCKS), size = sizes[random_next(&random) % 10];
        uint64_t action = random_next(&random) % 4;
        void *block = held[which].block;
        if (block == NULL) {
            size_t alignment = action == 0 ? (size_t)16 << random_next(&random) % 9 : 16;
            block = action == 1 ? ak_calloc(1, size) : ak_alloc_aligned(size, alignment);
            CHECK(block != NULL && is_aligned(block, alignment));
            held[which].tracked = is_tracked();
        } else {
            CHECK(pattern_holds(block, held[which].size, which + 1));
            if (held[which].tracked) live--;
            held[which].block = NULL;
            if (action == 0 && size != 0) {
                block = ak_realloc(block, size);
                CHECK(block != NULL && pattern_holds(block, held[which].size < size ? held[which].size : size, which + 1));
                /* One that is resized while tracking is on is known from then on; while it is off it may stay known. */
                size_t known;
                leaks(&known);
                CHECK(known == live || (known == live + 1 && (is_tracked() || held[which].tracked)));
                CHECK(known == live + 1 || !is_tracked());
                held[which].tracked = known == live + 1;
            } else if (action == 1) {
                ak_free_sized(block, held[which].size);
                continue;
            } else {
                ak_free(block);
                continue;
            }
        }
        held[which].block = block;
        held[which].size = size;
        pattern_fill(block, size, which + 1);
        if (held[which].tracked) live++;
        if (round % 11 == 0) {
            size_t blocks;
            leaks(&blocks);
            CHECK_MSG(blocks == live, "%zu blocks are live, not %zu, in round %d", live, blocks, round);
        }
    }
    for (size_t i = 0; i < BLOCKS; i++) ak_free(held[i].block);
    size_t blocks;
    leaks(&blocks);
    CHECK(blocks == 0);
}

/* Blocks that threads hand to one another while tracking is switched on and off. */
static struct {
    pthread_mutex_t lock;
    void *blocks[64];
    size_t sizes[64];
    bool stop;
} exchange = {PTHREAD_MUTEX_INITIALIZER, {NULL}, {0}, false};

static void *exchange_blocks(void *seed) {
    uint64_t random = (uint64_t)address_of(seed) + 1;
    bool stop = false;
    while (!stop) {
        size_t at = (size_t)(random_next(&random) % 64), size = (size_t)(random_next(&random) % 600);
        void *fresh = random_next(&random) % 8 == 0 ? ak_alloc(64) : ak_alloc(size);
        if (ak_usable_size(fresh) < size) size = 64;
        pattern_fill(fresh, size, 9);
        pthread_mutex_lock(&exchange.lock);
        void *old = exchange.blocks[at];
        size_t old_size = exchange.sizes[at];
        exchange.blocks[at] = fresh;
        exchange.sizes[at] = size;
        stop = exchange.stop;
        pthread_mutex_unlock(&exchange.lock);
        if (old != NULL) {
            CHECK(pattern_holds(old, old_size, 9));
            if (old_size == 64) ak_free_sized(old, 64);
            else ak_free(old);
        }
        void *aligned = ak_alloc_aligned(64, 64);
        CHECK(is_aligned(aligned, 64));
        ak_free(aligned);
    }
    return NULL;
}

TEST(threads_go_on_through_switches) {
    if (!is_switchable()) SKIP("tracking is on or off from the start");
    pthread_t threads[3];
    for (size_t i = 0; i < 3; i++)
        CHECK(pthread_create(&threads[i], NULL, exchange_blocks, (void *)(i + 1)) == 0);
    for (int round = 0; round < 300; round++) {
        CHECK(ak_track_set(round % 2 == 0 ? AK_TRACK_SITES : AK_TRACK_OFF));
        leaks(NULL);
        usleep(500);
    }
    pthread_mutex_lock(&exchange.lock);
    exchange.stop = true;
    pthread_mutex_unlock(&exchange.lock);
    for (size_t i = 0; i < 3; i++) CHECK(pthread_join(threads[i], NULL) == 0);
    for (size_t i = 0; i < 64; i++) ak_free(exchange.blocks[i]);
    size_t blocks;
    const char *printed = leaks(&blocks);
    CHECK_MSG(blocks == 0, "%s", printed);
}

TEST(policies) {
    CHECK(ak_policy_get() == AK_POLICY_ABORT);
    CHECK(ak_policy_set(AK_POLICY_QUIET) && ak_policy_get() == AK_POLICY_QUIET);
    CHECK(ak_policy_set(AK_POLICY_REPORT) && ak_policy_get() == AK_POLICY_REPORT);
    errno = 0;
    CHECK(!ak_policy_set((ak_policy_t)opaque_size(3)) && errno == EINVAL && ak_policy_get() == AK_POLICY_REPORT);
    CHECK(ak_policy_set(AK_POLICY_ABORT));
    CHECK(ak_fault_count() == 0);
}

/* ---- at exit ------------------------------------------------------------------------------------------------------ */

CHILD(leaks_two) {
    void *first = make(400);
    void *second = make(401);
    CHECK(first != NULL && second != NULL);
}
static child_result_t result;
TEST(leaks_at_exit) {
    const char *environment[2];
    environment[0] = "ALLOKIT_LEAKS=1";
    environment[1] = NULL;
    run_child("leaks_two", environment, 0, &result);
    CHECK_CHILD_OK(result);
    if (is_tracked()) {
        const char *first = "allokit: 2 live blocks, 801 bytes, from 1 call sites\n";
        CHECK_MSG(strncmp(result.err, first, strlen(first)) == 0, "stderr: %s", result.err);
        check_leak(result.err, 2, 801, MAKE_LINE, "make");
    } else {
        CHECK_MSG(strstr(result.err, "allokit: leaks are unknown: ") == result.err, "stderr: %s", result.err);
    }
    environment[0] = "ALLOKIT_LEAKS=0";
    run_child("leaks_two", environment, 0, &result);
    CHECK_CHILD_OK(result);
    CHECK_MSG(result.err[0] == 0, "stderr: %s", result.err);
}
