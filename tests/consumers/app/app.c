/*
 * app.c - a program that uses the library in the plainest way, from C and (as app.cc) from C++.
 *
 *     app <backend> <on|off>
 *
 * Fails unless the library is that backend's, was made for this header, serves several threads, and unless AK_TRACK is
 * defined (on) or not (off).
 */
#include <alloc.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                                            \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

enum { BLOCKS = 1000, THREADS = 4 };

/* Each thread has blocks of its own; what one has left is freed by main. */
static void *work(void *arg) {
    char **kept = (char **)arg;
    char *blocks[BLOCKS];
    for (int i = 0; i < BLOCKS; i++) {
        size_t size = (size_t)(i % 700) + 1;
        blocks[i] = (char *)ak_alloc(size);
        CHECK(blocks[i] != NULL);
        memset(blocks[i], i & 255, size);
    }
    for (int i = 0; i < BLOCKS; i++) {
        CHECK((unsigned char)blocks[i][i % 700] == (i & 255));
        ak_free(blocks[i]);
    }
    *kept = ak_strdup("kept");
    return NULL;
}

int main(int argc, char **argv) {
    CHECK(argc == 3);
    if (strcmp(ak_backend_name(), argv[1]) != 0) {
        fprintf(stderr, "the backend is %s, not %s\n", ak_backend_name(), argv[1]);
        return 1;
    }
    CHECK(ak_abi_version() == AK_ABI_VERSION);
#if defined(AK_TRACK)
    CHECK(strcmp(argv[2], "on") == 0);
#else
    CHECK(strcmp(argv[2], "off") == 0);
#endif

    pthread_t threads[THREADS];
    char *kept[THREADS];
    for (int i = 0; i < THREADS; i++) CHECK(pthread_create(&threads[i], NULL, work, &kept[i]) == 0);
    for (int i = 0; i < THREADS; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
        CHECK(strcmp(kept[i], "kept") == 0);
        ak_free(kept[i]);
    }

    double *numbers = AK_ARRAY(double, 100);
    CHECK(numbers != NULL && numbers[99] == 0);
    AK_FREE(numbers);
    void *aligned = ak_alloc_aligned(100, 4096);
    CHECK(aligned != NULL && (uintptr_t)aligned % 4096 == 0);
    ak_free(aligned);
    printf("%s %s\n", ak_backend_name(), ak_version());
    return 0;
}
