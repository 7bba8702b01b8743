/*
 * vex.c - a runtime that knows Allokit only under its own prefix.
 */
#include "vex_alloc.h"

#include <stdio.h>

typedef struct node {
    struct node *next;
    int value;
} node_t;

/* Leaked on purpose. */
static void *leak(void) {
    /* The next line's number is in CMakeLists.txt. */
    return vex_alloc(77);
}

static void write_some(const char *text, size_t length, void *arg) {
    (void)text;
    *(size_t *)arg += length;
}

int main(void) {
    /* A function as a value, a function called as one. */
    void (*release)(void *) = vex_free;
    void *(*acquire)(size_t) = &vex_alloc;
    release(acquire(10));
    release((vex_alloc)(10));

    node_t *node = VEX_NEW(node_t);
    if (node == NULL || node->next != NULL) return 1;
    VEX_FREE(node);
    if (node != NULL) return 1;
    int *numbers = VEX_ARRAY(int, 10);
    numbers = VEX_RESIZE(numbers, int, 1000);
    if (numbers == NULL) return 1;
    vex_free_sized(numbers, 1000 * sizeof *numbers);

    vex_stats_t stats;
    stats.struct_size = sizeof stats;
    if (!vex_stats_get(&stats)) return 1;
    vex_write_fn writer = write_some;
    size_t length = 0;
    if (!vex_stats_write(VEX_JSON, writer, &length) || length == 0) return 1;
    if (!vex_policy_set(VEX_POLICY_REPORT) || vex_policy_get() != VEX_POLICY_REPORT) return 1;

#if VEX_ABI_VERSION != 1
#error "the constant is of use to the preprocessor"
#endif
    void *leaked = leak();
    size_t live = vex_leaks_print();
    vex_free(leaked);
    return live == 1 ? 0 : 1;
}
