/*
 * exits.c - allocation and freeing where a process or a thread begins or ends: before main, in destructors of
 * thread-local data, in atexit handlers, after main, in forked children of processes with threads.
 */
#include "check.h"

#include <signal.h>

/* ---- before and after main --------------------------------------------------------------------------------------- */

/* Each order of constructors is tried: these run in every test's process. */
static void *from_constructor;
static void *freed_after_main;
static bool ends_normally;
__attribute__((constructor(101))) static void before_main(void) {
    from_constructor = ak_alloc(100);
    if (from_constructor == NULL) abort();
    memset(from_constructor, 0x77, 100);
    ak_free(ak_realloc(ak_calloc(3, 5), 1000));
    freed_after_main = ak_alloc(5000);
    if (freed_after_main == NULL) abort();
    /* Not kept live by the other tests, which count blocks. */
    ak_free(from_constructor);
    ak_free(freed_after_main);
    from_constructor = freed_after_main = NULL;
}
__attribute__((destructor(101))) static void after_main(void) {
    if (!ends_normally) return;
    ak_free(freed_after_main);
    void *late = ak_calloc(10, 100);
    if (late == NULL) abort();
    late = ak_realloc(late, 50000);
    if (late == NULL) abort();
    ak_free(late);
}

CHILD(ends_after_main) {
    freed_after_main = ak_alloc(777);
    CHECK(freed_after_main != NULL);
    ends_normally = true;
}
static child_result_t result;
TEST(free_after_main) {
    run_child("ends_after_main", NULL, 0, &result);
    CHECK_CHILD_OK(result);
    CHECK_MSG(result.err[0] == 0, "stderr: %s", result.err);
}

static void *freed_at_exit[3];
static void at_exit(void) {
    for (int i = 0; i < 3; i++) ak_free(freed_at_exit[i]);
    void *late = ak_alloc(123);
    if (late == NULL) _exit(9);
    ak_free(late);
}
CHILD(ends_in_atexit) {
    CHECK(atexit(at_exit) == 0); /* registered before the library can have registered its own */
    freed_at_exit[0] = ak_alloc(10);
    freed_at_exit[1] = ak_alloc(10000);
    freed_at_exit[2] = ak_alloc((size_t)3 << 20);
    ends_normally = true;
    exit(0);
}
TEST(free_in_atexit_handlers) {
    run_child("ends_in_atexit", NULL, 0, &result);
    CHECK_CHILD_OK(result);
    CHECK_MSG(result.err[0] == 0, "stderr: %s", result.err);
}

/* A detached thread goes on while main returns. */
static void *never_ends(void *argument) {
    for (size_t i = 0;; i++) {
        void *block = ak_alloc(i % 3000);
        if (block == NULL) _exit(9);
        ak_free(block);
    }
    return argument;
}
CHILD(ends_beside_a_thread) {
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, never_ends, NULL) == 0);
    pthread_detach(thread);
    usleep(5000);
    freed_after_main = ak_alloc(777);
    ends_normally = true;
}
TEST(exit_while_a_thread_allocates) {
    for (int i = 0; i < 20; i++) {
        run_child("ends_beside_a_thread", NULL, 0, &result);
        CHECK_CHILD_OK(result);
    }
}

/* ---- destructors of thread-local data ---------------------------------------------------------------------------- */

enum { KEYS = 3, ROUNDS = 3 };
static pthread_key_t keys[KEYS];
static int destructor_runs;
typedef struct value {
    int key, round;
    void *more;
} value_t;

static value_t *value_new(int key, int round) {
    value_t *value = AK_NEW(value_t);
    CHECK(value != NULL);
    value->key = key;
    value->round = round;
    value->more = ak_alloc(3000);
    CHECK(value->more != NULL);
    pattern_fill(value->more, 3000, (uint64_t)round);
    return value;
}

/* Frees what it holds and, for some rounds, puts a new value there: pthreads then calls it again, after the library's
 * own destructor has run at least once. */
static void destroy(void *argument) {
    value_t *value = (value_t *)argument;
    int key = value->key, round = value->round;
    CHECK(pattern_holds(value->more, 3000, (uint64_t)round));
    ak_free(value->more);
    ak_free(value);
    __atomic_fetch_add(&destructor_runs, 1, __ATOMIC_RELAXED);
    for (size_t i = 1; i < 50; i++) {
        void *block = ak_alloc(i * i);
        CHECK(block != NULL);
        memset(block, 1, i * i);
        ak_free(block);
    }
    if (round + 1 < ROUNDS) CHECK(pthread_setspecific(keys[key], value_new(key, round + 1)) == 0);
}

static void *with_values(void *argument) {
    for (int i = 0; i < KEYS; i++) CHECK(pthread_setspecific(keys[i], value_new(i, 0)) == 0);
    if (argument != NULL) return argument;
    return ak_alloc(50); /* the thread used the library itself, too */
}

TEST(free_in_tls_destructors) {
    /* One key from before the library's first use in a thread, the others from after. */
    for (int i = 0; i < KEYS; i++) {
        CHECK(pthread_key_create(&keys[i], destroy) == 0);
        ak_free(ak_alloc(10));
    }
    int threads = is_emulated() ? 20 : 200;
    for (int i = 0; i < threads; i++) {
        pthread_t thread;
        void *block;
        CHECK(pthread_create(&thread, NULL, with_values, NULL) == 0);
        pthread_join(thread, &block);
        ak_free(block);
    }
    CHECK_MSG(destructor_runs == threads * KEYS * ROUNDS, "%d destructors ran", destructor_runs);
    ak_stats_t stats;
    stats.struct_size = sizeof stats;
    CHECK(ak_stats_get(&stats));
    if (is_tracked()) CHECK(stats.current_bytes == 0);
    CHECK((stats.known & AK_KNOWN_THREADS) == 0 || stats.threads <= 4);
}

/* A destructor is the first to use the library in its thread. */
static void first_use(void *argument) {
    void *block = ak_alloc(1000);
    CHECK(block != NULL);
    ak_free(block);
    ak_free(argument);
    __atomic_fetch_add(&destructor_runs, 1, __ATOMIC_RELAXED);
}
static void *with_foreign_value(void *argument) {
    pthread_setspecific(keys[0], argument);
    return NULL;
}
TEST(first_use_in_a_tls_destructor) {
    CHECK(pthread_key_create(&keys[0], first_use) == 0);
    for (int i = 0; i < 100; i++) {
        pthread_t thread;
        CHECK(pthread_create(&thread, NULL, with_foreign_value, ak_alloc(500)) == 0);
        pthread_join(thread, NULL);
    }
    CHECK(destructor_runs == 100);
}

/* ---- fork -------------------------------------------------------------------------------------------------------- */

/* A child that waits for a lock of a thread which does not exist in it would wait forever. */
enum { CHILD_SECONDS = 15 };

static int stop;
static void *keep_busy(void *argument) {
    uint64_t random = (uint64_t)(uintptr_t)argument;
    void *held[64];
    memset(held, 0, sizeof held);
    while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
        uint64_t r = random_next(&random);
        ak_free(held[r % 64]);
        held[r % 64] = ak_alloc(r / 64 % 64 == 0 ? r / 4096 % 400000 : r / 4096 % 500);
        CHECK(held[r % 64] != NULL);
    }
    for (int i = 0; i < 64; i++) ak_free(held[i]);
    return NULL;
}

static void *in_child_thread(void *argument) {
    for (size_t i = 0; i < 100; i++) ak_free(ak_alloc(i * 50));
    ak_free(argument);
    return NULL;
}

/* What a forked child does: uses the library at once, frees and resizes its parent's blocks, starts a thread, forks. */
static void child_work(void **blocks, int count, int depth) {
    alarm(CHILD_SECONDS);
    void *fresh = ak_alloc(100);
    CHECK(fresh != NULL);
    for (int i = 0; i < count; i++) {
        CHECK(pattern_holds(blocks[i], (size_t)i * 37, (uint64_t)i));
        if (i % 3 == 0) {
            blocks[i] = ak_realloc(blocks[i], (size_t)i * 80 + 1);
            CHECK(blocks[i] != NULL && pattern_holds(blocks[i], (size_t)i * 37, (uint64_t)i));
        }
        ak_free(blocks[i]);
    }
    for (size_t i = 0; i < 2000; i++) {
        unsigned char *block = (unsigned char *)ak_calloc(1, i);
        CHECK(block != NULL && (i == 0 || block[i - 1] == 0));
        ak_free(block);
    }
    void *large = ak_alloc((size_t)2 << 20);
    CHECK(large != NULL);
    ak_free(large);
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, in_child_thread, fresh) == 0);
    pthread_join(thread, NULL);
    if (depth > 0) {
        void *mine[20];
        for (int i = 0; i < 20; i++) {
            mine[i] = ak_alloc((size_t)i * 37);
            CHECK(mine[i] != NULL);
            pattern_fill(mine[i], (size_t)i * 37, (uint64_t)i);
        }
        pid_t process = fork();
        CHECK(process >= 0);
        if (process == 0) {
            child_work(mine, 20, depth - 1);
            _exit(0);
        }
        int status;
        CHECK(waitpid(process, &status, 0) == process && status == 0);
        for (int i = 0; i < 20; i++) ak_free(mine[i]);
    }
}

TEST(forked_children_of_a_process_with_threads) {
    if (is_emulated()) SKIP("qemu-user fails its own assertions when a forked child starts a thread");
    pthread_t threads[3];
    for (int i = 0; i < 3; i++)
        CHECK(pthread_create(&threads[i], NULL, keep_busy, (void *)(uintptr_t)(i + 1)) == 0);
    enum { BLOCKS = 100 };
    void *blocks[BLOCKS];
    for (int i = 0; i < BLOCKS; i++) {
        blocks[i] = ak_alloc((size_t)i * 37);
        CHECK(blocks[i] != NULL);
        pattern_fill(blocks[i], (size_t)i * 37, (uint64_t)i);
    }
    int forks = 50;
    for (int i = 0; i < forks; i++) {
        pid_t process = fork();
        CHECK(process >= 0);
        if (process == 0) {
            child_work(blocks, BLOCKS, i % 10 == 0 ? 2 : 0);
            _exit(0);
        }
        int status;
        CHECK(waitpid(process, &status, 0) == process);
        CHECK_MSG(status == 0, "child %d ended with status 0x%x", i, (unsigned)status);
        void *block = ak_alloc(300); /* the parent goes on */
        CHECK(block != NULL);
        ak_free(block);
    }
    __atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
    for (int i = 0; i < 3; i++) pthread_join(threads[i], NULL);
    for (int i = 0; i < BLOCKS; i++) {
        CHECK(pattern_holds(blocks[i], (size_t)i * 37, (uint64_t)i));
        ak_free(blocks[i]);
    }
}

/* Several threads fork at once. */
static void *fork_often(void *argument) {
    for (int i = 0; i < 20; i++) {
        void *mine = ak_alloc(200);
        CHECK(mine != NULL);
        pid_t process = fork();
        CHECK(process >= 0);
        if (process == 0) {
            alarm(CHILD_SECONDS);
            ak_free(mine);
            ak_free(ak_calloc(7, 300));
            _exit(0);
        }
        int status;
        CHECK(waitpid(process, &status, 0) == process && status == 0);
        ak_free(mine);
    }
    return argument;
}
TEST(threads_that_fork_at_the_same_time) {
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) CHECK(pthread_create(&threads[i], NULL, fork_often, NULL) == 0);
    for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
}

/* The tracker counts a parent's blocks in the child as well. */
TEST(tracking_goes_on_in_a_forked_child) {
    if (!is_tracked()) SKIP("tracking is off");
    void *inherited = ak_alloc(100);
    pid_t process = fork();
    CHECK(process >= 0);
    if (process == 0) {
        alarm(CHILD_SECONDS);
        ak_stats_t stats;
        stats.struct_size = sizeof stats;
        CHECK(ak_stats_get(&stats) && stats.current_bytes == 100);
        void *more = ak_alloc(11);
        CHECK(ak_stats_get(&stats) && stats.current_bytes == 111);
        ak_free(inherited);
        ak_free(more);
        CHECK(ak_stats_get(&stats) && stats.current_bytes == 0);
        _exit(0);
    }
    int status;
    CHECK(waitpid(process, &status, 0) == process && status == 0);
    ak_free(inherited);
}
