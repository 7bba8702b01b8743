/*
 * main.c - the runner of the conformance suite: lists the tests, runs each in a process of its own, prints one line each.
 *
 *   suite                 all tests; exit status 0 when none failed
 *   suite NAME...         those whose name contains one of the words
 *   suite --list          their names
 *   suite --run NAME      one test in this process; status 0 passed, 1 failed, 77 skipped
 *   suite --emit FORMAT   text, json or prometheus of ak_stats_write on stdout, the mask `known` on stderr
 *
 * CHECK_EMULATOR=/usr/bin/qemu-aarch64 in the environment: the emulator under which it starts its tests.
 */
#include "check.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/resource.h>
#include <time.h>

enum { SKIPPED = 77, TEST_SECONDS = 120 };

static test_t *tests;
static const char *self_path;

void test_add(test_t *test) {
    test_t **where = &tests;
    while (*where != NULL && strcmp((*where)->name, test->name) < 0) where = &(*where)->next;
    test->next = *where;
    *where = test;
}

static void say(const char *text) {
    size_t length = strlen(text);
    if (write(STDOUT_FILENO, text, length) != (ssize_t)length) _exit(2);
}

void check_failed(const char *file, int line, const char *format, ...) {
    char text[2048];
    int used = snprintf(text, sizeof text, "%s:%d: ", file, line);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text + used, sizeof text - (size_t)used, format, arguments);
    va_end(arguments);
    say(text);
    _exit(1);
}

void skip_test(const char *reason) {
    say(reason);
    _exit(SKIPPED);
}

/* ---- processes -------------------------------------------------------------------------------------------------- */

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Reads a pipe until its end or the time is over, and waits for the process; false when it had to be killed. */
static bool collect(pid_t process, int from, char *text, size_t capacity, int *status) {
    size_t used = 0;
    double end = now() + TEST_SECONDS;
    bool in_time = true;
    for (;;) {
        struct pollfd waiting;
        waiting.fd = from;
        waiting.events = POLLIN;
        waiting.revents = 0;
        if (now() > end) {
            in_time = false;
            kill(process, SIGKILL);
            break;
        }
        if (poll(&waiting, 1, 200) <= 0) continue;
        char piece[4096];
        ssize_t got = read(from, piece, sizeof piece);
        if (got <= 0) break;
        size_t kept = capacity - 1 - used < (size_t)got ? capacity - 1 - used : (size_t)got;
        memcpy(text + used, piece, kept);
        used += kept;
    }
    text[used] = 0;
    close(from);
    waitpid(process, status, 0);
    return in_time;
}

static void exec_test(const char *name) {
    char option[] = "--run";
    char word[256], program[4096];
    snprintf(word, sizeof word, "%s", name);
    snprintf(program, sizeof program, "%s", self_path);
    char *arguments[5];
    int n = 0;
    const char *emulator = getenv("CHECK_EMULATOR");
    char emulator_word[4096];
    if (emulator != NULL) {
        snprintf(emulator_word, sizeof emulator_word, "%s", emulator);
        arguments[n++] = emulator_word;
    }
    arguments[n++] = program;
    arguments[n++] = option;
    arguments[n++] = word;
    arguments[n] = NULL;
    execv(arguments[0], arguments);
    _exit(126);
}

void run_child(const char *name, const char *const *environment, size_t limit_as, child_result_t *result) {
    int ends[2];
    CHECK(pipe(ends) == 0);
    pid_t process = fork();
    CHECK(process >= 0);
    if (process == 0) {
        dup2(ends[1], STDERR_FILENO);
        close(ends[0]);
        close(ends[1]);
        for (; environment != NULL && *environment != NULL; environment++) {
            char entry[1024];
            snprintf(entry, sizeof entry, "%s", *environment);
            char *value = strchr(entry, '=');
            if (value == NULL) {
                unsetenv(entry);
            } else {
                *value = 0;
                setenv(entry, value + 1, 1);
            }
        }
        if (limit_as != 0) {
            struct rlimit limit;
            limit.rlim_cur = limit.rlim_max = limit_as;
            setrlimit(RLIMIT_AS, &limit);
        }
        exec_test(name);
    }
    close(ends[1]);
    bool in_time = collect(process, ends[0], result->err, sizeof result->err, &result->status);
    CHECK_MSG(in_time, "child %s did not end in %d s", name, TEST_SECONDS);
}

static int captured_file = -1, real_stderr = -1;

void capture_begin(void) {
    char path[] = "/tmp/allokit-capture-XXXXXX";
    captured_file = mkstemp(path);
    CHECK(captured_file >= 0);
    unlink(path);
    fflush(stderr);
    real_stderr = dup(STDERR_FILENO);
    dup2(captured_file, STDERR_FILENO);
}

const char *capture_end(void) {
    static char text[1 << 18];
    fflush(stderr);
    dup2(real_stderr, STDERR_FILENO);
    close(real_stderr);
    lseek(captured_file, 0, SEEK_SET);
    size_t used = 0;
    for (;;) {
        ssize_t got = read(captured_file, text + used, sizeof text - 1 - used);
        if (got <= 0) break;
        used += (size_t)got;
    }
    close(captured_file);
    text[used] = 0;
    return text;
}

/* ---- what the tests share --------------------------------------------------------------------------------------- */

static uint64_t mixed(uint64_t x) {
    x ^= x >> 33;
    x *= UINT64_C(0xff51afd7ed558ccd);
    x ^= x >> 33;
    return x * UINT64_C(0xc4ceb9fe1a85ec53);
}

enum { DENSE = 4096, STRIDE = 64 };

void pattern_fill(void *block, size_t size, uint64_t seed) {
    unsigned char *bytes = (unsigned char *)block;
    for (size_t i = 0; i < size; i += (i < DENSE || size - i <= STRIDE) ? 1 : STRIDE)
        bytes[i] = (unsigned char)(mixed(seed + i) >> 24);
}

/* `kept` may be less than the size that was filled: bytes which the fill left out, in the last stretch, are not read. */
bool pattern_holds(const void *block, size_t kept, uint64_t seed) {
    const unsigned char *bytes = (const unsigned char *)block;
    for (size_t i = 0; i < kept; i += i < DENSE ? 1 : STRIDE)
        if (bytes[i] != (unsigned char)(mixed(seed + i) >> 24)) return false;
    return true;
}

uint64_t random_next(uint64_t *state) {
    uint64_t x = *state;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    *state = x;
    return x * UINT64_C(0x2545f4914f6cdd1d);
}

size_t resident_bytes(void) {
    FILE *file = fopen("/proc/self/statm", "r");
    unsigned long pages = 0, resident = 0;
    if (file == NULL || fscanf(file, "%lu %lu", &pages, &resident) != 2) resident = 0;
    if (file != NULL) fclose(file);
    return (size_t)resident * (size_t)sysconf(_SC_PAGESIZE);
}

bool is_tracked(void) { return ak_track_get() == AK_TRACK_SITES; }
bool is_backend(const char *name) { return strcmp(ak_backend_name(), name) == 0; }
bool is_emulated(void) { return getenv("CHECK_EMULATOR") != NULL; }

/* ---- the runner ------------------------------------------------------------------------------------------------- */

static void write_to_file(const char *text, size_t length, void *file) { fwrite(text, 1, length, (FILE *)file); }

static int emit(const char *format) {
    static const char *const names[] = {"text", "json", "prometheus"};
    for (int i = 0; i < 3; i++) {
        if (strcmp(format, names[i]) != 0) continue;
        void *live = ak_alloc(1000);
        ak_stats_t stats;
        stats.struct_size = sizeof stats;
        bool ok = live != NULL && ak_stats_get(&stats) && ak_stats_write((ak_format_t)i, write_to_file, stdout);
        fprintf(stderr, "%llu\n", (unsigned long long)stats.known);
        ak_free(live);
        return ok ? 0 : 1;
    }
    fprintf(stderr, "suite: unknown format %s; valid: text, json, prometheus\n", format);
    return 2;
}

static int run_here(const char *name) {
    for (test_t *test = tests; test != NULL; test = test->next)
        if (strcmp(test->name, name) == 0) {
            test->run();
            return 0;
        }
    fprintf(stderr, "suite: no test named %s; --list names them\n", name);
    return 2;
}

static bool is_chosen(const test_t *test, int count, char **words) {
    if (test->child) return false;
    if (count == 0) return true;
    for (int i = 0; i < count; i++)
        if (strstr(test->name, words[i]) != NULL) return true;
    return false;
}

int main(int count, char **arguments) {
    static char path[4096];
    ssize_t length = readlink("/proc/self/exe", path, sizeof path - 1);
    /* Under an emulator /proc/self/exe may be the emulator itself; argv[0] is the program there. */
    self_path = is_emulated() || length <= 0 ? arguments[0] : path;
    if (count == 3 && strcmp(arguments[1], "--run") == 0) return run_here(arguments[2]);
    if (count == 3 && strcmp(arguments[1], "--emit") == 0) return emit(arguments[2]);
    bool list = count == 2 && strcmp(arguments[1], "--list") == 0;

    int passed = 0, failed = 0, skipped = 0;
    for (test_t *test = tests; test != NULL; test = test->next) {
        if (!is_chosen(test, list ? 0 : count - 1, arguments + 1)) continue;
        if (list) {
            printf("%s\n", test->name);
            continue;
        }
        int ends[2], status = 0;
        if (pipe(ends) != 0) return 2;
        double begin = now();
        pid_t process = fork();
        if (process == 0) {
            dup2(ends[1], STDOUT_FILENO);
            dup2(ends[1], STDERR_FILENO);
            close(ends[0]);
            close(ends[1]);
            exec_test(test->name);
        }
        close(ends[1]);
        char text[8192];
        bool in_time = collect(process, ends[0], text, sizeof text, &status);
        double seconds = now() - begin;
        if (in_time && WIFEXITED(status) && WEXITSTATUS(status) == 0) {
            passed++;
            printf("ok       %s (%.2f s)\n", test->name, seconds);
        } else if (in_time && WIFEXITED(status) && WEXITSTATUS(status) == SKIPPED) {
            skipped++;
            printf("skipped  %s: %s\n", test->name, text);
        } else {
            failed++;
            printf("FAILED   %s: %s", test->name, text);
            if (!in_time) printf(" (not done after %d s)", TEST_SECONDS);
            if (WIFSIGNALED(status)) printf(" (signal %d)", WTERMSIG(status));
            printf("\n");
        }
        fflush(stdout);
    }
    if (list) return 0;
    printf("%d ok, %d failed, %d skipped\n", passed, failed, skipped);
    return failed == 0 && passed > 0 ? 0 : 1;
}
