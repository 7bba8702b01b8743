/* One bug with a block that is guarded by pages: argv[1] says which. Allocates through malloc, so that it serves the preload
 * library, or, compiled with -DAK, through alloc.h. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#ifdef AK
#include "alloc.h"
#define malloc ak_alloc
#define free ak_free
#define realloc ak_realloc
#endif

enum { MANY = 4000 };
static char *blocks[MANY];

#define NOINLINE __attribute__((noinline))

/* A guarded block lies in the upper half of 64 KiB, and nothing before or behind it can be read. */
static int readable(const char *at) {
    int ends[2];
    if (pipe(ends) != 0) abort();
    long got = write(ends[1], at, 1);
    close(ends[0]);
    close(ends[1]);
    return got == 1;
}

/* Not static, so that reports name them. */
char *make(size_t size);
char *guarded(int at_end);
void release(char *block);
int look(const volatile char *at);
void change(volatile char *at);

NOINLINE char *make(size_t size) {
    char *volatile block = malloc(size);
    return block;
}

/* A guarded block of 96 bytes that ends (or begins) with its pages. */
NOINLINE char *guarded(int at_end) {
    for (int i = 0; i < MANY; i++) {
        blocks[i] = make(96);
        memset(blocks[i], 1, 96);
        uintptr_t at = (uintptr_t)blocks[i];
        uintptr_t edge = at_end ? at + 96 : at;
        if (edge % 4096 == 0 && !readable(at_end ? blocks[i] + 96 : blocks[i] - 1)) return blocks[i];
    }
    fprintf(stderr, "no block of %d is guarded\n", MANY);
    exit(2);
}

NOINLINE void release(char *block) { free(block); }
NOINLINE int look(const volatile char *at) { return *at; }
NOINLINE void change(volatile char *at) { *at = 7; }

static void own(int signal_number) {
    static const char text[] = "the program's own handler\n";
    if (write(2, text, sizeof text - 1) < 0) abort();
    _exit(40 + (signal_number == SIGSEGV));
}

static void in_child(char *block) {
    pid_t child = fork();
    if (child == 0) {
        change(block + 96);
        _exit(0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    fprintf(stderr, "the child: %s\n", WIFSIGNALED(status) ? "signal" : "no signal");
    release(block);
}

/* A second of small blocks, a thousand live: how many are guarded, and how much memory there is at the end. */
static void load(void) {
    struct timespec start, now;
    clock_gettime(CLOCK_MONOTONIC, &start);
    unsigned seed = 1, seen = 0;
    long ms = 0;
    for (long i = 0; ms < 1000; i++) {
        seed = seed * 1103515245u + 12345u;
        char **place = &blocks[seed >> 16 & 1023];
        free(*place);
        *place = make(16 + (seed >> 8 & 255));
        **place = 1;
#ifdef AK
        seen += ak_guard_sampled(*place);
#endif
        if (i % 1000 == 0) {
            clock_gettime(CLOCK_MONOTONIC, &now);
            ms = (now.tv_sec - start.tv_sec) * 1000 + (now.tv_nsec - start.tv_nsec) / 1000000;
        }
    }
    char line[256];
    FILE *status = fopen("/proc/self/status", "r");
    while (status != NULL && fgets(line, sizeof line, status) != NULL) {
        if (strncmp(line, "VmRSS:", 6) == 0) printf("%s", line);
    }
    if (status != NULL) fclose(status);
    printf("seen: %u\n", seen);
}

int main(int argc, char **argv) {
    const char *bug = argc > 1 ? argv[1] : "";
    if (strcmp(bug, "overflow") == 0) {
        change(guarded(1) + 96 + 3);
    } else if (strcmp(bug, "overread") == 0) {
        look(guarded(1) + 96);
    } else if (strcmp(bug, "underflow") == 0) {
        change(guarded(0) - 1);
    } else if (strcmp(bug, "near") == 0) { /* within its page: seen when it is freed */
        char *block = guarded(0);
        change(block + 96);
        release(block);
    } else if (strcmp(bug, "read") == 0) {
        char *block = guarded(1);
        release(block);
        look(block + 5);
    } else if (strcmp(bug, "write") == 0) {
        char *block = guarded(0);
        release(block);
        change(block + 95);
    } else if (strcmp(bug, "double") == 0) {
        char *block = guarded(1);
        release(block);
        release(block);
    } else if (strcmp(bug, "inside") == 0) {
        release(guarded(1) + 32);
    } else if (strcmp(bug, "resize") == 0) {
        char *block = guarded(1);
        release(block);
        char *volatile other = realloc(block, 200);
        (void)other;
    } else if (strcmp(bug, "own") == 0) {
        char *block = guarded(1);
        signal(SIGSEGV, own);
        change(block + 96);
    } else if (strcmp(bug, "child") == 0) {
        in_child(guarded(1));
    } else if (strcmp(bug, "elsewhere") == 0) { /* no block of ours: nothing is said */
        free(guarded(1));
        change((char *)(uintptr_t)16);
    } else if (strcmp(bug, "before") == 0) { /* a handler that was there first */
#ifdef AK
        signal(SIGSEGV, own);
        if (!ak_guard_sample_set(2)) return 4;
        change(guarded(1) + 96);
#endif
    } else if (strcmp(bug, "load") == 0) {
        load();
    } else if (strcmp(bug, "none") == 0) {
        for (int i = 0; i < MANY; i++) free(make(1 + (size_t)i % 900));
    } else {
        return 3;
    }
    fprintf(stderr, "went on\n");
    return 0;
}
