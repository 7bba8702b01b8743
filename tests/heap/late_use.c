/* A read of a heap's block after its end, for AddressSanitizer and valgrind to report at its line. Without them it does
 * nothing. */
#include <alloc.h>

#include <stdio.h>
#include <string.h>

int main(int argc, char **argv) {
    ak_heap_t *heap = ak_heap_new(NULL);
    char *text = ak_heap_strdup(heap, "a text in a heap");
    char *large = (char *)ak_heap_calloc(heap, 1000, 100);
    for (size_t i = 0; i < 3000; i++) {
        char *p = (char *)ak_heap_alloc(heap, i);
        memset(p, 1, i);
        p = (char *)ak_heap_realloc(heap, p, i * 3 + 1);
        if (p == NULL || (i != 0 && p[i - 1] != 1)) return 2;
        if (i % 3 != 0) ak_free(p);
    }
    large = (char *)ak_realloc(large, 300000);
    if (large == NULL || large[99999] != 0 || strcmp(text, "a text in a heap") != 0) return 3;
    if (ak_heap_check(heap) != 0) return 4;
    if (argc > 1) {
        volatile char *late = text;
        if (strcmp(argv[1], "late") == 0) {
            ak_heap_free(heap, text);
        } else {
            ak_heap_reset(heap);
        }
        puts("now");
        if (late[3] == 'e') puts("e"); /* LATE */
    }
    ak_heap_destroy(heap);
    return 0;
}
