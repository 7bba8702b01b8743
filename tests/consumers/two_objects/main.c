/*
 * main.c - uses the library only through two shared objects, part a and part b. To be run with ALLOKIT_TRACK=sites: what
 * one of them allocates the other counts and frees, so the process has one state.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

void *a_alloc(size_t size);
void a_free(void *ptr);
uint64_t a_live(void);
const char *a_backend(void);
void *b_alloc(size_t size);
void b_free(void *ptr);
uint64_t b_live(void);
const char *b_backend(void);

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                                            \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

int main(void) {
    /* The same text, not two that are alike. */
    CHECK(a_backend() == b_backend());
    CHECK(a_live() == 0 && b_live() == 0);
    void *mine = a_alloc(1000);
    CHECK(mine != NULL && a_live() == 1000 && b_live() == 1000);
    void *yours = b_alloc(500);
    CHECK(yours != NULL && a_live() == 1500 && b_live() == 1500);
    b_free(mine);
    CHECK(a_live() == 500 && b_live() == 500);
    a_free(yours);
    CHECK(a_live() == 0 && b_live() == 0);
    return 0;
}
