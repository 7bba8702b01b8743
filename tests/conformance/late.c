/*
 * late.c - a program that does not link the library loads it while it runs, uses it from several threads, closes it and
 * goes on: it must find room for its thread-local cell, and the threads that used it must still end well.
 *
 *   late PATH-OF-SHARED-LIBRARY
 */
#include <dlfcn.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

typedef void *(*alloc_fn)(size_t);
typedef void (*free_fn)(void *);
static alloc_fn alloc;
static free_fn release;
static pthread_barrier_t closed;
static int failed;

static void *work(void *argument) {
    for (size_t i = 0; i < 5000; i++) {
        void *block = alloc(i);
        if (block == NULL || (uintptr_t)block % 16 != 0) {
            failed = 1;
            break;
        }
        memset(block, 1, i);
        release(block);
    }
    pthread_barrier_wait(&closed); /* used it; */
    pthread_barrier_wait(&closed); /* it is closed now: the destructors of this thread's data run after that */
    return argument;
}

int main(int count, char **arguments) {
    if (count != 2) return 2;
    void *library = dlopen(arguments[1], RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
        fprintf(stderr, "late: %s\n", dlerror());
        return 1;
    }
    *(void **)(void *)&alloc = dlsym(library, "ak_alloc");
    *(void **)(void *)&release = dlsym(library, "ak_free");
    if (alloc == NULL || release == NULL) return 1;
    enum { THREADS = 4 };
    pthread_t threads[THREADS];
    pthread_barrier_init(&closed, NULL, THREADS + 1);
    for (int i = 0; i < THREADS; i++) pthread_create(&threads[i], NULL, work, NULL);
    pthread_barrier_wait(&closed);
    dlclose(library);
    pthread_barrier_wait(&closed);
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    return failed;
}
