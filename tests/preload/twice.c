/*
 * twice.c - frees a block twice, where the allocator does not track. `twice trim`: the block has come home to its page in
 * between. `twice thread`: the thread that made and freed it has ended, and another one frees it. `twice once`: neither.
 * The end is the allocator's message and SIGABRT; status 0 when nothing was seen in three seconds.
 */
#define _GNU_SOURCE 1
#include <malloc.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#if defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 12
#pragma GCC diagnostic ignored "-Wuse-after-free" /* it is right, and here on purpose */
#endif

enum { SIZE = 5000 };

/* The second of three blocks, so that its page stays in use. */
static void *kept[3];

static void *make_and_free(void *unused) {
    (void)unused;
    for (int i = 0; i < 3; i++) {
        kept[i] = malloc(SIZE);
        if (kept[i] == NULL) exit(2);
    }
    printf("%p\n", kept[1]);
    fflush(stdout);
    void *copy = kept[1];
    __asm__ volatile("" : "+r"(copy));
    free(copy);
    return NULL;
}

int main(int argc, char **argv) {
    const char *how = argc > 1 ? argv[1] : "";
    if (strcmp(how, "thread") == 0) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, make_and_free, NULL) != 0) return 2;
        pthread_join(thread, NULL);
    } else {
        make_and_free(NULL);
    }
    malloc_trim(0);
    if (strcmp(how, "once") != 0) free(kept[1]);
    malloc_trim(0);
    for (int i = 0; i < 3000; i++) {
        struct timespec pause = {0, 1000000};
        free(malloc(48));
        nanosleep(&pause, NULL);
    }
    return 0;
}
