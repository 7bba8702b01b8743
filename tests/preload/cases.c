/*
 * cases.c - what a program may expect of malloc and its family, under LD_PRELOAD or on libc itself.
 *
 *   cases               all cases, each in a process of its own; a line each, exit status 0 when none failed
 *   cases WORD...       those whose name contains one of the words
 *   cases --list        their names
 *   cases --run NAME    one case in this process
 *
 * CASES_PRELOAD is the library that the cases run under (this runner does not), CASES_PLUGIN a shared object to open,
 * CASES_SECONDS the time that a case may take. With CASES_EXACT, a WORD is a whole name. To be compiled with
 * -fno-builtin: the calls are the subject.
 */
#define _GNU_SOURCE 1
#include <dlfcn.h>
#include <errno.h>
#include <malloc.h>
#include <obstack.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { KIB = 1 << 10, MIB = 1 << 20, CASE_SECONDS = 50, MOST_CASES = 128 };

typedef struct test_case {
    const char *name;
    void (*run)(void);
} test_case_t;

static test_case_t cases[MOST_CASES];
static int case_count;

#define CASE(case_name)                                                                                                \
    static void case_name(void);                                                                                       \
    __attribute__((constructor)) static void case_name##_register(void) {                                              \
        if (case_count == MOST_CASES) _exit(3);                                                                        \
        cases[case_count].name = #case_name;                                                                           \
        cases[case_count++].run = case_name;                                                                           \
    }                                                                                                                  \
    static void case_name(void)

/* Ends the process at once; any thread may call it, and nothing here allocates. */
__attribute__((noreturn, format(printf, 2, 3))) static void failed(int line, const char *format, ...) {
    char text[512];
    int used = snprintf(text, sizeof text, "line %d: ", line);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text + used, sizeof text - (size_t)used, format, arguments);
    va_end(arguments);
    if (write(STDERR_FILENO, text, strlen(text)) < 0) _exit(2);
    _exit(1);
}

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) failed(__LINE__, "%s", #condition);                                                          \
    } while (0)
#define CHECK_MSG(condition, ...)                                                                                      \
    do {                                                                                                               \
        if (!(condition)) failed(__LINE__, __VA_ARGS__);                                                               \
    } while (0)

/* Values that the compiler knows nothing of: it may otherwise assume what the headers promise. */
static void *hidden(void *p) {
    __asm__ volatile("" : "+r"(p));
    return p;
}
static size_t unknown(size_t n) {
    __asm__ volatile("" : "+r"(n));
    return n;
}
#define TOO_LARGE unknown((size_t)PTRDIFF_MAX + 1)

static bool is_aligned(void *p, size_t alignment) { return ((uintptr_t)hidden(p) & (alignment - 1)) == 0; }

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void nap(double seconds) {
    struct timespec t;
    t.tv_sec = (time_t)seconds;
    t.tv_nsec = (long)((seconds - (double)t.tv_sec) * 1e9);
    nanosleep(&t, NULL);
}

static long status_kib(const char *field) {
    FILE *f = fopen("/proc/self/status", "r");
    CHECK(f != NULL);
    char line[256];
    long kib = -1;
    while (fgets(line, sizeof line, f) != NULL)
        if (strncmp(line, field, strlen(field)) == 0) kib = strtol(line + strlen(field) + 1, NULL, 10);
    fclose(f);
    CHECK(kib >= 0);
    return kib;
}

static int mappings(void) {
    FILE *f = fopen("/proc/self/maps", "r");
    CHECK(f != NULL);
    int lines = 0;
    for (int c; (c = getc(f)) != EOF;) lines += c == '\n';
    fclose(f);
    return lines;
}

static void must_wait(pid_t child) {
    int status = 0;
    CHECK(waitpid(child, &status, 0) == child);
    CHECK_MSG(WIFEXITED(status) && WEXITSTATUS(status) == 0, "a child ended with status 0x%x", (unsigned)status);
}

/* A function that older headers do not declare. */
static void *function(const char *name) {
    void *found = dlsym(RTLD_DEFAULT, name);
    CHECK_MSG(found != NULL, "%s is missing", name);
    return found;
}
#define FUNCTION(name, result, ...)                                                                                    \
    result (*name##_)(__VA_ARGS__);                                                                                    \
    *(void **)&name##_ = function(#name)

CASE(the_library_serves) {
    const char *library = getenv("CASES_PRELOAD");
    Dl_info info;
    void *address = dlsym(RTLD_DEFAULT, "malloc");
    CHECK(address != NULL && dladdr(address, &info) != 0);
    CHECK_MSG(library == NULL || strcmp(info.dli_fname, library) == 0, "malloc is that of %s", info.dli_fname);
}

/* ---- sizes, errors ---------------------------------------------------------------------------------------------- */

CASE(zero_malloc) {
    char *a = malloc(unknown(0)), *b = malloc(unknown(0));
    CHECK(a != NULL && b != NULL && a != b);
    free(a);
    free(b);
}

CASE(zero_calloc) {
    char *a = calloc(unknown(0), 8), *b = calloc(8, unknown(0));
    CHECK(a != NULL && b != NULL && a != b);
    free(a);
    free(b);
}

CASE(zero_aligned) {
    void *p = NULL;
    CHECK(posix_memalign(&p, 64, unknown(0)) == 0 && p != NULL && is_aligned(p, 64));
    void *q = aligned_alloc(64, unknown(0));
    CHECK(q != NULL && q != p && is_aligned(q, 64));
    free(p);
    free(q);
}

CASE(zero_realloc_gives_a_block) {
    if (getenv("CASES_PRELOAD") == NULL) return; /* libc's own frees and gives NULL */
    char *p = malloc(100);
    CHECK(p != NULL);
    p = realloc(p, unknown(0));
    CHECK(p != NULL);
    p = realloc(p, 50);
    CHECK(p != NULL);
    memset(p, 1, 50);
    free(p);
}

CASE(null_realloc) {
    char *p = realloc(NULL, 30);
    CHECK(p != NULL);
    memset(p, 1, 30);
    free(p);
    p = realloc(NULL, unknown(0));
    CHECK(p != NULL);
    free(p);
}

CASE(null_free) {
    errno = 77;
    free(NULL);
    CHECK(errno == 77);
    CHECK(malloc_usable_size(NULL) == 0);
}

static void refused(void *p, int error, int line) {
    if (hidden(p) != NULL || errno != error) failed(line, "got %p with errno %d, not NULL with %d", p, errno, error);
    errno = 0;
}
#define REFUSED(call, error) (errno = 0, refused(call, error, __LINE__))

static const size_t too_large[] = {(size_t)PTRDIFF_MAX + 1, (size_t)PTRDIFF_MAX + 4096, SIZE_MAX / 4 * 3,
                                   SIZE_MAX - 4096, SIZE_MAX - 16, SIZE_MAX - 1, SIZE_MAX};
enum { TOO_LARGE_COUNT = sizeof too_large / sizeof too_large[0] };

CASE(too_large_malloc) {
    for (int i = 0; i < TOO_LARGE_COUNT; i++) REFUSED(malloc(unknown(too_large[i])), ENOMEM);
    REFUSED(malloc(unknown((size_t)1 << 60)), ENOMEM);
}

CASE(too_large_calloc) {
    for (int i = 0; i < TOO_LARGE_COUNT; i++) {
        REFUSED(calloc(1, unknown(too_large[i])), ENOMEM);
        REFUSED(calloc(unknown(too_large[i]), 1), ENOMEM);
        REFUSED(calloc(unknown(too_large[i]), 8), ENOMEM);
    }
    REFUSED(calloc(unknown((size_t)1 << 32), (size_t)1 << 32), ENOMEM);
    REFUSED(calloc(unknown(SIZE_MAX / 2), 3), ENOMEM);
}

CASE(too_large_realloc_keeps_the_block) {
    for (int large = 0; large < 2; large++) {
        size_t size = large ? 3 * MIB : 100;
        unsigned char *p = malloc(size);
        CHECK(p != NULL);
        memset(p, 0x5a, size);
        for (int i = 0; i < TOO_LARGE_COUNT; i++) {
            REFUSED(realloc(hidden(p), unknown(too_large[i])), ENOMEM);
            REFUSED(reallocarray(hidden(p), unknown(too_large[i]), 1), ENOMEM);
        }
        REFUSED(realloc(hidden(p), unknown((size_t)1 << 60)), ENOMEM);
        REFUSED(reallocarray(hidden(p), unknown((size_t)1 << 33), (size_t)1 << 33), ENOMEM);
        for (size_t i = 0; i < size; i++) CHECK(p[i] == 0x5a);
        free(p);
    }
}

CASE(too_large_aligned) {
    for (int i = 0; i < TOO_LARGE_COUNT; i++) {
        size_t size = unknown(too_large[i]);
        REFUSED(aligned_alloc(64, size), ENOMEM);
        REFUSED(memalign(64, size), ENOMEM);
        REFUSED(memalign(8, size), ENOMEM);
        REFUSED(valloc(size), ENOMEM);
        REFUSED(pvalloc(size), ENOMEM);
        void *p = &p;
        CHECK(posix_memalign(&p, 64, size) == ENOMEM && p == &p);
    }
}

CASE(posix_memalign_errors) {
    void *p = &p;
    errno = 77;
    static const size_t wrong[] = {0, 1, 2, 3, 4, 7, 24, 48, 100, (size_t)1 << 20 | 8, SIZE_MAX};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        int error = posix_memalign(&p, unknown(wrong[i]), 64);
        CHECK_MSG(error == EINVAL, "alignment %zu: %d", wrong[i], error);
        CHECK(p == &p);
    }
    CHECK_MSG(errno == 77, "errno is %d", errno);
    /* libc's own leaves ENOMEM in errno as well, and programs look there. */
    CHECK(posix_memalign(&p, 16, TOO_LARGE) == ENOMEM && p == &p && errno == ENOMEM);
    errno = 77;
    CHECK(posix_memalign(&p, 4096, TOO_LARGE) == ENOMEM && p == &p && errno == ENOMEM);
    errno = 77;
    CHECK(posix_memalign(&p, 64, 100) == 0 && errno == 77);
    free(p);
}

CASE(aligned_alloc_errors) {
    if (getenv("CASES_PRELOAD") == NULL) return; /* libc refuses from 2.38 on */
    static const size_t wrong[] = {0, 3, 24, 48, 100, 4097, SIZE_MAX};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) REFUSED(aligned_alloc(unknown(wrong[i]), 64), EINVAL);
    REFUSED(aligned_alloc(unknown((size_t)1 << 62), 64), ENOMEM);
}

/* memalign rounds up what is no power of two, as libc's does. */
CASE(memalign_rounds) {
    void *p = memalign(unknown(24), 10), *q = memalign(unknown(0), 10), *r = memalign(unknown(300), 1000);
    CHECK(p != NULL && is_aligned(p, 32) && q != NULL && is_aligned(q, 16) && r != NULL && is_aligned(r, 512));
    free(p);
    free(q);
    free(r);
    REFUSED(memalign(unknown(SIZE_MAX), 10), EINVAL);
}

/* ---- alignment -------------------------------------------------------------------------------------------------- */

CASE(alignment_of_every_size) {
    void *kept[256];
    for (size_t size = 0; size < 256; size++) {
        kept[size] = malloc(unknown(size));
        CHECK_MSG(kept[size] != NULL && is_aligned(kept[size], 16), "malloc(%zu) gave %p", size, kept[size]);
        void *p = calloc(1, unknown(size));
        CHECK_MSG(p != NULL && is_aligned(p, 16), "calloc(1, %zu) gave %p", size, p);
        p = realloc(p, unknown(size / 2 + 1));
        CHECK_MSG(p != NULL && is_aligned(p, 16), "realloc(p, %zu) gave %p", size / 2 + 1, p);
        free(p);
    }
    for (size_t size = 0; size < 256; size++) free(kept[size]);
}

CASE(alignment_asked_for) {
    static const size_t sizes[] = {0, 1, 24, 100, 1000, 5000, 40000, 200000};
    for (size_t alignment = sizeof(void *); alignment <= 4 * MIB; alignment *= 2) {
        void *kept[8];
        for (int i = 0; i < 8; i++) {
            CHECK(posix_memalign(&kept[i], alignment, sizes[i]) == 0);
            CHECK_MSG(is_aligned(kept[i], alignment), "alignment %zu, size %zu: %p", alignment, sizes[i], kept[i]);
            CHECK(malloc_usable_size(kept[i]) >= sizes[i]);
            memset(kept[i], i, sizes[i]);
        }
        for (int i = 0; i < 8; i++) {
            for (size_t at = 0; at < sizes[i]; at += 97) CHECK(((unsigned char *)kept[i])[at] == i);
            free(kept[i]);
        }
        void *p = aligned_alloc(alignment, alignment * 3), *q = memalign(alignment, 5);
        CHECK(p != NULL && is_aligned(p, alignment) && q != NULL && is_aligned(q, alignment));
        memset(p, 1, alignment * 3);
        free(p);
        free(q);
    }
}

CASE(alignment_of_a_gib) {
    for (size_t alignment = (size_t)64 * MIB; alignment <= (size_t)1 << 30; alignment *= 4) {
        char *p = aligned_alloc(alignment, 100);
        CHECK_MSG(p != NULL && is_aligned(p, alignment), "alignment %zu: %p", alignment, (void *)p);
        memset(p, 1, 100);
        free(p);
    }
}

CASE(aligned_blocks_resize) {
    void *p = NULL;
    CHECK(posix_memalign(&p, 4096, 300) == 0);
    memset(p, 7, 300);
    for (size_t size = 301; size < (size_t)2 * MIB; size = size * 3) {
        p = realloc(p, size);
        CHECK(p != NULL);
        for (int i = 0; i < 300; i++) CHECK(((char *)p)[i] == 7);
    }
    free(p);
}

CASE(valloc_pvalloc) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    void *p = valloc(100), *q = pvalloc(unknown(page + 1)), *r = pvalloc(unknown(0));
    CHECK(p != NULL && is_aligned(p, page));
    CHECK(q != NULL && is_aligned(q, page) && malloc_usable_size(q) >= 2 * page);
    CHECK(r != NULL && is_aligned(r, page));
    memset(q, 1, 2 * page);
    free(p);
    free(q);
    free(r);
}

/* ---- contents --------------------------------------------------------------------------------------------------- */

CASE(usable_size_is_usable) {
    void *kept[64];
    int n = 0;
    for (size_t size = 1; n < 64 && size < (size_t)8 * MIB; size = size * 4 / 3 + 1, n++) {
        kept[n] = malloc(size);
        CHECK(kept[n] != NULL && malloc_usable_size(kept[n]) >= size);
        memset(kept[n], n, malloc_usable_size(kept[n]));
    }
    for (int i = 0; i < n; i++) {
        unsigned char *p = kept[i];
        size_t usable = malloc_usable_size(p);
        for (size_t at = 0; at < usable; at++) CHECK(p[at] == i);
        free(p);
    }
}

CASE(calloc_is_zero) {
    static const size_t sizes[] = {1, 16, 100, 1000, 5000, 33000, 70000, 300000, 3000000, 40000000};
    for (int round = 0; round < 3; round++) {
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
            unsigned char *p = calloc(1, sizes[i]);
            CHECK(p != NULL);
            for (size_t at = 0; at < sizes[i]; at++) CHECK_MSG(p[at] == 0, "byte %zu of %zu", at, sizes[i]);
            memset(p, 0xee, sizes[i]);
            free(p);
            p = malloc(sizes[i]);
            CHECK(p != NULL);
            memset(p, 0xdd, sizes[i]);
            free(p);
        }
    }
}

CASE(realloc_keeps_contents) {
    size_t size = 1;
    unsigned char *p = malloc(size);
    CHECK(p != NULL);
    p[0] = 0;
    unsigned seed = 1;
    for (int i = 0; i < 2000; i++) {
        seed = seed * 1103515245 + 12345;
        size_t wanted = 1 + (seed >> 8) % ((size_t)1 << (seed >> 3) % 22);
        p = realloc(p, wanted);
        CHECK(p != NULL);
        size_t common = wanted < size ? wanted : size;
        for (size_t at = 0; at < common; at += 1 + common / 500)
            CHECK_MSG(p[at] == (unsigned char)(at * 7), "byte %zu from %zu to %zu", at, size, wanted);
        for (size_t at = 0; at < wanted; at++) p[at] = (unsigned char)(at * 7);
        size = wanted;
    }
    free(p);
}

/* Growing a block in small steps costs neither time nor memory out of proportion. */
CASE(realloc_growth) {
    double start = now();
    size_t most = (size_t)64 * MIB;
    char *p = NULL;
    for (size_t size = 4096; size <= most; size += 4096) {
        p = realloc(p, size);
        CHECK(p != NULL);
        p[size - 1] = 1;
    }
    for (size_t at = 4095; at < most; at += 4096) CHECK(p[at] == 1);
    free(p);
    CHECK_MSG(now() - start < 12, "it took %.1f s", now() - start);
    long peak = status_kib("VmHWM");
    CHECK_MSG(peak < 250 * KIB, "%ld KiB for a block of %zu KiB", peak, most / KIB);
}

CASE(free_keeps_errno) {
    static const size_t sizes[] = {10, 1000, 50000, 500000, 5000000, 50000000};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        void *kept[4];
        for (int j = 0; j < 4; j++) {
            kept[j] = malloc(sizes[i]);
            CHECK(kept[j] != NULL);
            memset(kept[j], 1, sizes[i]);
        }
        errno = 77;
        for (int j = 0; j < 4; j++) free(kept[j]);
        CHECK(errno == 77);
    }
}

/* ---- the rest of the interface ---------------------------------------------------------------------------------- */

CASE(c23_frees) {
    if (getenv("CASES_PRELOAD") == NULL) return; /* libc has them from 2.42 on */
    FUNCTION(free_sized, void, void *, size_t);
    FUNCTION(free_aligned_sized, void, void *, size_t, size_t);
    for (int i = 0; i < 1000000; i++) {
        free_sized_(malloc(100), 100);
        free_aligned_sized_(aligned_alloc(64, 128), 64, 128);
    }
    free_sized_(NULL, 10);
    free_aligned_sized_(NULL, 64, 10);
    if (getenv("CASES_EMULATED") != NULL) return; /* the emulator's own memory is counted */
    CHECK_MSG(status_kib("VmRSS") < 100 * KIB, "%ld KiB", status_kib("VmRSS"));
}

CASE(figures_and_settings) {
    void *p = malloc((size_t)3 * MIB);
    CHECK(p != NULL);
    memset(p, 1, (size_t)3 * MIB);
#if defined __GLIBC__ && __GLIBC_PREREQ(2, 33)
    struct mallinfo2 info = mallinfo2();
    CHECK_MSG(info.uordblks + info.hblkhd >= (size_t)3 * MIB, "%zu", info.uordblks);
#endif
    CHECK(mallopt(M_MMAP_THRESHOLD, 1 << 20) == 1);
    free(p);
    malloc_trim(0);
    char *text = NULL;
    size_t length = 0;
    FILE *f = open_memstream(&text, &length);
    CHECK(f != NULL);
    CHECK(malloc_info(0, f) == 0);
    CHECK(malloc_info(1, f) != 0);
    fclose(f);
    CHECK(strncmp(text, "<malloc version=", 16) == 0 && strstr(text, "</malloc>") != NULL);
    free(text);
}

CASE(libc_allocates_for_us) {
    char *text = NULL, *line = NULL, *copy = strdup("some text");
    size_t room = 0;
    CHECK(copy != NULL && asprintf(&text, "%s and %d", copy, 42) == 16);
    CHECK(malloc_usable_size(copy) >= 10 && malloc_usable_size(text) >= 17);
    FILE *f = fopen("/proc/self/maps", "r");
    CHECK(f != NULL);
    for (int i = 0; i < 5; i++) CHECK(getline(&line, &room, f) > 0);
    line = realloc(line, 5000);
    CHECK(line != NULL);
    fclose(f);
    char *path = realpath("/proc/self/../self", NULL);
    CHECK(path != NULL);
    free(path);
    free(line);
    free(text);
    free(copy);
}

#define obstack_chunk_alloc malloc
#define obstack_chunk_free free
CASE(obstacks) {
    struct obstack stack;
    obstack_init(&stack);
    for (int i = 0; i < 5000; i++) {
        char *p = obstack_alloc(&stack, i % 300 + 1);
        memset(p, i, (size_t)(i % 300 + 1));
    }
    obstack_free(&stack, NULL);
}

/* ---- threads and processes -------------------------------------------------------------------------------------- */

static volatile bool stop;

static void *churn(void *seed_at) {
    unsigned seed = *(unsigned *)seed_at;
    void *kept[64] = {NULL};
    while (!stop) {
        seed = seed * 1103515245 + 12345;
        unsigned at = (seed >> 10) % 64;
        free(kept[at]);
        kept[at] = malloc((seed >> 16) % 40000);
    }
    for (int i = 0; i < 64; i++) free(kept[i]);
    return NULL;
}

CASE(fork_with_threads) {
    pthread_t threads[4];
    unsigned seeds[4];
    void *ours[200];
    for (int i = 0; i < 200; i++) ours[i] = malloc((size_t)i * 10);
    for (unsigned i = 0; i < 4; i++) {
        seeds[i] = i + 1;
        CHECK(pthread_create(&threads[i], NULL, churn, &seeds[i]) == 0);
    }
    for (int round = 0; round < 100; round++) {
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            alarm(20); /* a lock that nobody will give back */
            void *kept[100];
            for (size_t i = 0; i < 100; i++) {
                kept[i] = malloc(i * 500);
                if (kept[i] == NULL) _exit(1);
                memset(kept[i], 1, i * 500);
            }
            for (int i = 0; i < 100; i++) free(kept[i]);
            for (int i = 0; i < 200; i++) free(ours[i]);
            pthread_t thread;
            unsigned seed = 9;
            stop = true;
            if (pthread_create(&thread, NULL, churn, &seed) != 0) _exit(2);
            pthread_join(thread, NULL);
            _exit(0);
        }
        must_wait(child);
    }
    stop = true;
    for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
}

static int forks_in_handler;
static void fork_at_once(int signal_number) {
    (void)signal_number;
    int error = errno;
    pid_t child = fork();
    if (child == 0) _exit(0);
    int status = 0;
    while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    CHECK(child > 0 && status == 0);
    forks_in_handler++;
    errno = error;
}

/* fork is one of the few functions that a handler may call, also one that has interrupted malloc. */
CASE(fork_in_a_signal_handler) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = fork_at_once;
    action.sa_flags = SA_RESTART;
    CHECK(sigaction(SIGUSR1, &action, NULL) == 0);
    pid_t parent = getpid(), sender = fork();
    CHECK(sender >= 0);
    while (sender == 0) {
        if (getppid() != parent || kill(parent, SIGUSR1) != 0) _exit(0);
        nap(0.0001);
    }
    void *kept[200] = {NULL};
    unsigned seed = 5;
    for (double end = now() + 3; now() < end;) {
        seed = seed * 1103515245 + 12345;
        unsigned at = (seed >> 10) % 200;
        free(kept[at]);
        kept[at] = malloc((seed >> 14) % 70000);
        CHECK(kept[at] != NULL);
    }
    for (int i = 0; i < 200; i++) free(kept[i]);
    kill(sender, SIGKILL);
    waitpid(sender, NULL, 0);
    CHECK_MSG(forks_in_handler >= 20, "only %d forks", forks_in_handler);
}

static void *forks(void *unused) {
    (void)unused;
    while (!stop) {
        pid_t child = fork();
        if (child == 0) _exit(0);
        CHECK(child > 0);
        must_wait(child);
    }
    return NULL;
}

static void *flushes(void *unused) {
    (void)unused;
    while (!stop) CHECK(fflush(NULL) == 0);
    return NULL;
}

static void *reads_lines(void *unused) {
    (void)unused;
    FILE *f = tmpfile();
    CHECK(f != NULL);
    for (int i = 0; i < 50000; i++) putc('x', f);
    putc('\n', f);
    while (!stop) {
        char *line = NULL;
        size_t room = 0;
        rewind(f);
        CHECK(getline(&line, &room, f) == 50001);
        free(line);
    }
    fclose(f);
    return NULL;
}

/* fork waits for whoever goes through the list of streams, that thread for a stream's user, and that one for malloc. */
CASE(fork_while_streams_are_flushed) {
    pthread_t threads[6];
    void *(*const work[6])(void *) = {forks, forks, flushes, reads_lines, reads_lines, reads_lines};
    for (int i = 0; i < 6; i++) CHECK(pthread_create(&threads[i], NULL, work[i], NULL) == 0);
    nap(2);
    stop = true;
    for (int i = 0; i < 6; i++) pthread_join(threads[i], NULL);
}

static pthread_key_t key;
static int rounds_seen;

static void at_thread_end(void *block) {
    memset(block, 2, 100);
    free(block);
    if (++rounds_seen < 4) pthread_setspecific(key, malloc(100));
    for (size_t i = 0; i < 100; i++) free(malloc(i * 100));
}

static void *with_key(void *unused) {
    (void)unused;
    rounds_seen = 0;
    pthread_setspecific(key, malloc(100));
    return NULL;
}

CASE(tls_destructors) {
    CHECK(pthread_key_create(&key, at_thread_end) == 0);
    for (int i = 0; i < 300; i++) {
        pthread_t thread;
        CHECK(pthread_create(&thread, NULL, with_key, NULL) == 0);
        pthread_join(thread, NULL);
        CHECK(rounds_seen == 4);
    }
    CHECK_MSG(status_kib("VmRSS") < 100 * KIB, "%ld KiB", status_kib("VmRSS"));
}

static void *one_block(void *size_at) {
    char *p = malloc(*(size_t *)size_at);
    if (p != NULL) memset(p, 3, *(size_t *)size_at);
    return p;
}

/* Threads come and go; their blocks are freed after their end. */
CASE(threads_come_and_go) {
    for (int i = 0; i < 1500; i++) {
        size_t size = 100 + (size_t)(i % 10) * 9000;
        pthread_t thread;
        void *p = NULL;
        CHECK(pthread_create(&thread, NULL, one_block, &size) == 0);
        CHECK(pthread_join(thread, &p) == 0 && p != NULL);
        for (size_t at = 0; at < size; at += 50) CHECK(((char *)p)[at] == 3);
        free(p);
    }
    CHECK_MSG(status_kib("VmRSS") < 150 * KIB, "%ld KiB", status_kib("VmRSS"));
}

CASE(small_stacks) {
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    CHECK(pthread_attr_setstacksize(&attributes, 32 * KIB) == 0);
    for (int i = 0; i < 50; i++) {
        size_t size = 1000000;
        pthread_t thread;
        void *p = NULL;
        CHECK(pthread_create(&thread, &attributes, one_block, &size) == 0);
        CHECK(pthread_join(thread, &p) == 0 && p != NULL);
        free(p);
    }
}

enum { HANDED = 512 };
static void *handed[HANDED];
static pthread_barrier_t barrier;

static void *only_frees(void *rounds_at) {
    for (int i = 0; i < *(int *)rounds_at; i++) {
        pthread_barrier_wait(&barrier);
        for (int j = 0; j < HANDED; j++) free(handed[j]);
        pthread_barrier_wait(&barrier);
    }
    return NULL;
}

CASE(a_thread_that_only_frees) {
    int rounds = 1500;
    pthread_t thread;
    pthread_barrier_init(&barrier, NULL, 2);
    CHECK(pthread_create(&thread, NULL, only_frees, &rounds) == 0);
    for (int i = 0; i < rounds; i++) {
        for (int j = 0; j < HANDED; j++) {
            size_t size = (size_t)(j % 16 + 1) * 100;
            handed[j] = malloc(size);
            CHECK(handed[j] != NULL);
            memset(handed[j], 1, size);
        }
        pthread_barrier_wait(&barrier);
        pthread_barrier_wait(&barrier);
    }
    pthread_join(thread, NULL);
    /* 650 MiB have passed, half a MiB at a time. */
    CHECK_MSG(status_kib("VmHWM") < 60 * KIB, "%ld KiB", status_kib("VmHWM"));
}

static void *try_large(void *unused) {
    (void)unused;
    for (int i = 0; i < 200; i++) {
        errno = 0;
        if (malloc(TOO_LARGE) != NULL || errno != ENOMEM) return &key;
        free(malloc(100));
    }
    return NULL;
}

CASE(failures_in_threads) {
    for (int i = 0; i < 100; i++) {
        pthread_t thread;
        void *wrong = NULL;
        CHECK(pthread_create(&thread, NULL, try_large, NULL) == 0);
        CHECK(pthread_join(thread, &wrong) == 0 && wrong == NULL);
    }
}

/* ---- the process's beginning and end ---------------------------------------------------------------------------- */

static void *from_early;
static void early(int argc, char **argv, char **environment) {
    (void)argc, (void)argv, (void)environment;
    from_early = malloc(1234);
}
/* Runs before any constructor, those of preloaded libraries included. */
__attribute__((section(".preinit_array"), used)) static void (*early_entry)(int, char **, char **) = early;

CASE(before_constructors) {
    CHECK(from_early != NULL && malloc_usable_size(from_early) >= 1234);
    memset(from_early, 1, 1234);
    from_early = realloc(from_early, 100000);
    CHECK(from_early != NULL);
    free(from_early);
}

static void *for_the_end;
static void at_the_end(void) {
    free(for_the_end);
    for (size_t i = 0; i < 200; i++) free(malloc(i * 1000));
}
__attribute__((destructor)) static void after_the_end(void) {
    if (for_the_end != NULL) free(malloc(10));
}

CASE(exit_handlers) {
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        for_the_end = malloc(5000);
        atexit(at_the_end);
        exit(0);
    }
    must_wait(child);
}

static void *loaded(const char *name, int flags, void **plugin) {
    const char *path = getenv("CASES_PLUGIN");
    CHECK(path != NULL);
    *plugin = dlopen(path, RTLD_NOW | flags);
    CHECK_MSG(*plugin != NULL, "%s", dlerror());
    void *found = dlsym(*plugin, name);
    CHECK(found != NULL);
    return found;
}

CASE(dlopen_late) {
    void *plugin;
    void *(*make)(size_t);
    void (*drop)(void *);
    *(void **)&make = loaded("plugin_make", 0, &plugin);
    *(void **)&drop = dlsym(plugin, "plugin_drop");
    void *kept[100];
    for (size_t i = 0; i < 100; i++) {
        kept[i] = make(i * 100 + 1);
        CHECK(kept[i] != NULL);
        memset(kept[i], 1, i * 100 + 1);
    }
    for (int i = 0; i < 50; i++) free(kept[i]);
    for (int i = 50; i < 90; i++) drop(kept[i]);
    for (int i = 0; i < 100; i++) drop(malloc(100));
    dlclose(plugin);
    for (int i = 90; i < 100; i++) free(kept[i]);
}

/* The plugin is bound to libc's malloc, past us; its blocks are freed, resized and asked for here. */
CASE(blocks_of_libc) {
    void *plugin;
    void *(*make)(size_t);
    void (*drop)(void *);
    *(void **)&make = loaded("plugin_make", RTLD_DEEPBIND, &plugin);
    *(void **)&drop = dlsym(plugin, "plugin_drop");
    static const size_t sizes[] = {1, 100, 5000, 100000, 3000000};
    for (int round = 0; round < 200; round++) {
        for (size_t i = 0; i < 5; i++) {
            char *p = make(sizes[i]);
            CHECK(p != NULL && malloc_usable_size(p) >= sizes[i]);
            p[0] = 5;
            p = realloc(p, sizes[i] * 2);
            CHECK(p != NULL && p[0] == 5);
            errno = 77;
            free(p);
            CHECK(errno == 77);
            char *q = make(sizes[i]);
            char *r = realloc(q, unknown(0));
            free(r);
        }
    }
    CHECK_MSG(status_kib("VmHWM") < 100 * KIB, "%ld KiB", status_kib("VmHWM"));
    dlclose(plugin);
}

/* ---- memory ----------------------------------------------------------------------------------------------------- */

static void limit_address_space(size_t bytes) {
    struct rlimit limit;
    limit.rlim_cur = limit.rlim_max = bytes;
    CHECK(setrlimit(RLIMIT_AS, &limit) == 0);
}

/* A process that begins under the limit: runs this program again. */
static void begin_under(size_t limit, const char *name) {
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        limit_address_space(limit);
        char self[] = "/proc/self/exe", option[] = "--run", word[64];
        snprintf(word, sizeof word, "%s", name);
        char *arguments[4] = {self, option, word, NULL};
        execv(self, arguments);
        _exit(9);
    }
    must_wait(child);
}

CASE(starts_under_2_gib) { begin_under((size_t)2 << 30, "libc_allocates_for_us"); }
CASE(starts_under_256_mib) { begin_under((size_t)256 << 20, "libc_allocates_for_us"); }
CASE(threads_under_2_gib) { begin_under((size_t)2 << 30, "fork_with_threads"); }

CASE(memory_runs_out) {
    limit_address_space((size_t)600 * MIB);
    static const size_t sizes[] = {3000000, 100000, 1000, 16};
    static void *kept[1000000];
    for (int round = 0; round < 2; round++) {
        int n = 0;
        size_t total = 0;
        for (int i = 0; i < 4; i++) {
            for (;;) {
                errno = 0;
                void *p = malloc(sizes[i]);
                if (p == NULL) {
                    CHECK_MSG(errno == ENOMEM, "errno is %d", errno);
                    break;
                }
                CHECK(n < 1000000);
                kept[n++] = p;
                total += sizes[i];
                if (sizes[i] <= 1000 && n > 900000) break;
            }
        }
        /* A limit that comes after the start leaves no address space for what tracking notes of further stretches. */
        size_t least = getenv("ALLOKIT_TRACK") != NULL ? (size_t)20 * MIB : (size_t)200 * MIB;
        CHECK_MSG(total > least, "only %zu KiB of 600 MiB were to be had", total / KIB);
        while (n > 0) free(kept[--n]);
    }
}

static void light_use(double seconds) {
    for (double end = now() + seconds; now() < end; nap(0.001)) {
        free(malloc(48));
        free(malloc(700));
    }
}

static void fill_and_free(size_t size, size_t total) {
    size_t count = total / size;
    void **blocks = malloc(count * sizeof(void *));
    CHECK(blocks != NULL);
    for (size_t i = 0; i < count; i++) {
        blocks[i] = malloc(size);
        CHECK(blocks[i] != NULL);
        memset(blocks[i], 0x33, size);
    }
    for (size_t i = 0; i < count; i++) free(blocks[i]);
    free(blocks);
}

static void returned(size_t size) {
    light_use(0.01);
    long before = status_kib("VmRSS");
    fill_and_free(size, (size_t)200 * MIB);
    light_use(2);
    long after = status_kib("VmRSS");
    CHECK_MSG(after < before + 10 * KIB, "%ld KiB are still resident", after - before);
}
CASE(returned_small_blocks) { returned(64); }
CASE(returned_large_blocks) { returned(100000); }

CASE(returned_by_trim) {
    fill_and_free(1000, (size_t)100 * MIB);
    malloc_trim(0);
    CHECK_MSG(status_kib("VmRSS") < 20 * KIB, "%ld KiB", status_kib("VmRSS"));
}

CASE(mappings_of_20000_large_blocks) {
    enum { COUNT = 20000 };
    static void *blocks[COUNT];
    int before = mappings();
    for (int i = 0; i < COUNT; i++) {
        blocks[i] = malloc((size_t)140 * KIB);
        CHECK(blocks[i] != NULL);
        *(char *)blocks[i] = 1;
    }
    int added = mappings() - before;
    CHECK_MSG(added < 2000, "%d mappings more", added);
    for (int i = 0; i < COUNT; i += 2) free(blocks[i]);
    for (int i = 1; i < COUNT; i += 2) free(blocks[i]);
}

/* ---- the runner ------------------------------------------------------------------------------------------------- */

static bool run_one(const char *self, const test_case_t *one) {
    int ends[2];
    if (pipe(ends) != 0) return false;
    pid_t child = fork();
    if (child == 0) {
        const char *library = getenv("CASES_PRELOAD");
        if (library != NULL) setenv("LD_PRELOAD", library, 1);
        const char *seconds = getenv("CASES_SECONDS");
        alarm(seconds != NULL ? (unsigned)atoi(seconds) : CASE_SECONDS);
        dup2(ends[1], STDERR_FILENO);
        close(ends[0]);
        close(ends[1]);
        execl(self, self, "--run", one->name, (char *)NULL);
        _exit(9);
    }
    close(ends[1]);
    char text[4096];
    size_t used = 0;
    for (ssize_t got; used < sizeof text - 1 && (got = read(ends[0], text + used, sizeof text - 1 - used)) > 0;)
        used += (size_t)got;
    text[used] = 0;
    close(ends[0]);
    int status = 0;
    waitpid(child, &status, 0);
    bool fine = WIFEXITED(status) && WEXITSTATUS(status) == 0;
    char how[64] = "";
    if (WIFSIGNALED(status)) snprintf(how, sizeof how, " (signal %d)", WTERMSIG(status));
    printf("%s %s%s%s%s\n", fine ? "ok" : "FAILED", one->name, how, used > 0 ? ": " : "", text);
    fflush(stdout);
    return fine;
}

static bool fits(const char *name, const char *word) {
    return getenv("CASES_EXACT") != NULL ? strcmp(name, word) == 0 : strstr(name, word) != NULL;
}

int main(int argc, char **argv) {
    if (argc > 2 && strcmp(argv[1], "--run") == 0) {
        for (int i = 0; i < case_count; i++) {
            if (strcmp(cases[i].name, argv[2]) == 0) {
                cases[i].run();
                return 0;
            }
        }
        return 3;
    }
    bool list = argc > 1 && strcmp(argv[1], "--list") == 0, fine = true;
    for (int i = 0; i < case_count; i++) {
        bool wanted = list || argc == 1;
        for (int word = 1; word < argc && !wanted; word++) wanted = fits(cases[i].name, argv[word]);
        if (list) puts(cases[i].name);
        else if (wanted && !run_one("/proc/self/exe", &cases[i])) fine = false;
    }
    return fine ? 0 : 1;
}
