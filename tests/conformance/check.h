/*
 * check.h - the harness of the conformance suite: named tests, each run in a process of its own, and what they share.
 *
 * A test is TEST(name) { ... }; CHECK(condition) ends it as failed, SKIP(reason) as skipped. CHILD(name) { ... } is run
 * only by a test, through run_child, in a fresh process with an environment of its own. The sources are C99 and C++11.
 */
#ifndef CHECK_H
#define CHECK_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#include <alloc.h>

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct test {
    const char *name;
    void (*run)(void);
    bool child; /* only run_child runs it */
    struct test *next;
} test_t;

void test_add(test_t *test);

#define TEST_(test_name, is_child)                                                                                     \
    static void test_name(void);                                                                                       \
    static test_t test_name##_entry = {#test_name, test_name, is_child, NULL};                                         \
    __attribute__((constructor)) static void test_name##_register(void) { test_add(&test_name##_entry); }              \
    static void test_name(void)
#define TEST(test_name) TEST_(test_name, false)
#define CHILD(test_name) TEST_(test_name, true)

/* Both end the process at once, without atexit handlers; the message goes to the runner. Any thread may call them. */
void check_failed(const char *file, int line, const char *format, ...) __attribute__((noreturn, format(printf, 3, 4)));
void skip_test(const char *reason) __attribute__((noreturn));
#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) check_failed(__FILE__, __LINE__, "%s", #condition);                                          \
    } while (0)
#define CHECK_MSG(condition, ...)                                                                                      \
    do {                                                                                                               \
        if (!(condition)) check_failed(__FILE__, __LINE__, __VA_ARGS__);                                               \
    } while (0)
#define SKIP(reason) skip_test(reason)

/* What a child process did: how it ended and what it wrote to stderr (at most 64 KiB, zero-terminated). */
typedef struct child_result {
    int status; /* as of waitpid */
    char err[65536];
} child_result_t;

/* Runs CHILD(name) in a fresh process. `environment` holds "NAME=value" entries up to a NULL, or is NULL; an entry
 * without '=' removes the variable. `limit_as` is its RLIMIT_AS in bytes, 0 for none. */
void run_child(const char *name, const char *const *environment, size_t limit_as, child_result_t *result);
#define CHECK_CHILD_OK(result)                                                                                         \
    CHECK_MSG(WIFEXITED((result).status) && WEXITSTATUS((result).status) == 0, "child ended with status 0x%x: %s",     \
              (unsigned)(result).status, (result).err)

/* Sends stderr to memory from capture_begin to capture_end, which returns what was written, zero-terminated. */
void capture_begin(void);
const char *capture_end(void);

/* Fills a block with a pattern made from its address, size and seed; pattern_check fails the test where it differs in
 * the first `kept` bytes. Uses a word every 64 bytes of large blocks, every byte of small ones. */
void pattern_fill(void *block, size_t size, uint64_t seed);
bool pattern_holds(const void *block, size_t kept, uint64_t seed);

/* xorshift64*: repeatable random numbers; the state must not be 0. */
uint64_t random_next(uint64_t *state);

/* Resident bytes of this process. */
size_t resident_bytes(void);

/* Whether tracking is on, whether the backend has this name, whether the program runs under emulation. */
bool is_tracked(void);
bool is_backend(const char *name);
bool is_emulated(void);

static inline uintptr_t address_of(const void *p) { return (uintptr_t)p; }

/* Keeps the compiler from knowing where a value came from: without it, it deletes pairs of alloc and free, and reasons
 * about sizes that cannot work. */
static inline size_t opaque_size(size_t n) {
    __asm__ volatile("" : "+r"(n));
    return n;
}
static inline void *opaque_pointer(void *p) {
    __asm__ volatile("" : "+r"(p) : : "memory");
    return p;
}

/* The header promises the compiler an alignment (alloc_align), which would remove a check of it: hence opaque. */
static inline bool is_aligned(const void *p, size_t alignment) {
    return address_of(opaque_pointer((void *)(uintptr_t)p)) % alignment == 0;
}

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* CHECK_H */
