/* A read after a reset, for AddressSanitizer and valgrind to report at its line. Without them it does nothing. */
#include <alloc.h>

#include <stdio.h>
#include <string.h>

int main(int argc, char **argv) {
    (void)argv;
    ak_arena_t *a = ak_arena_new(NULL);
    char *text = ak_arena_strdup(a, "a text in an arena");
    char *other = ak_arena_sprintf(a, "%s, formatted", text);
    int *numbers = (int *)ak_arena_calloc(a, 100, sizeof *numbers);
    ak_arena_mark_t mark = ak_arena_mark(a);
    for (int i = 0; i < 1000; i++) memset(ak_arena_alloc(a, 100), 1, 100);
    if (!ak_arena_rewind(a, mark)) return 3;
    numbers = (int *)ak_arena_realloc(a, numbers, 400, 4000);
    if (numbers == NULL || numbers[99] != 0 || strcmp(other, "a text in an arena, formatted") != 0) return 2;
    if (argc > 1) {
        ak_arena_reset(a);
        if (text[3] == 'e') puts("e"); /* LATE */
    }
    ak_arena_destroy(a);
    return 0;
}
