/*
 * main.c - a program with a mimalloc of its own, beside the one inside liballokit_mimalloc. Neither may know the other's
 * blocks, and what the program sets on its own must not reach ours.
 */
#include <alloc.h>
#include <mimalloc.h>

#include <stdio.h>
#include <stdlib.h>

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                                            \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

static int errors;

static void on_error(int code, void *arg) {
    (void)code;
    (void)arg;
    errors++;
}

int main(void) {
    enum { COUNT = 1000 };
    static void *ours[COUNT], *theirs[COUNT];
    mi_register_error(on_error, NULL);
    for (size_t i = 0; i < COUNT; i++) {
        ours[i] = ak_alloc(i + 1);
        theirs[i] = mi_malloc(i + 1);
        CHECK(ours[i] != NULL && theirs[i] != NULL);
        CHECK(mi_is_in_heap_region(theirs[i]));
        CHECK(!mi_is_in_heap_region(ours[i]));
    }
    for (size_t i = 0; i < COUNT; i++) {
        ak_free(ours[i]);
        mi_free(theirs[i]);
    }
    /* Too large for both: the program's handler hears of its own failure only. */
    CHECK(ak_alloc(PTRDIFF_MAX / 2) == NULL && errors == 0);
    CHECK(mi_malloc(PTRDIFF_MAX / 2) == NULL && errors > 0);
    return 0;
}
