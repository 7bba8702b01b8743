/*
 * 06_vex - a language runtime with macros of its own over alloc.h (see vex_alloc.h), used by a small program.
 *
 * The program counts words in maps of the Vex heap, drops and collects them, and exports two strings that it forgets to
 * free. The leak report at the end names the lines in *this* program and in the runtime that called vex_alloc, never a
 * line of vex_alloc.h:
 *
 *     ALLOKIT_TRACK=sites ./06_vex
 */
#include "vex.h"
#include "vex_alloc.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int failures;

static void expect(const char *what, size_t found, size_t right) {
    printf("%s: %zu\n", what, found);
    if (found == right) return;
    fprintf(stderr, "vex: %s should be %zu\n", what, right);
    failures++;
}

/* A map from each word of the text to how often it is there, and the list of words in their order. */
static vex_map_t *count_words(vex_heap_t *heap, const char *text, vex_array_t *order) {
    vex_map_t *counts = vex_map_new(heap);
    vex_value_t keep = vex_object(counts);
    vex_root(heap, &keep);
    while (*text != '\0') {
        size_t length = strcspn(text, " ");
        vex_string_t *word = vex_string_new(heap, text, length);
        vex_value_t count = vex_map_get(counts, word);
        if (count.tag == VEX_NIL) vex_array_push(order, vex_object(word));
        vex_map_set(counts, word, vex_integer(count.tag == VEX_NIL ? 1 : count.as.integer + 1));
        text += length;
        while (*text == ' ') text++;
    }
    vex_unroot(heap);
    return counts;
}

int main(void) {
    vex_heap_t *heap = vex_heap_new();

    /* Many short-lived results, one that stays: the collector has work. */
    vex_value_t kept = {.tag = VEX_NIL, .as = {.integer = 0}};
    vex_root(heap, &kept);
    size_t freed = 0;
    for (int round = 0; round < 2000; round++) {
        vex_array_t *order = vex_array_new(heap);
        kept = vex_object(order);
        vex_map_t *counts = count_words(heap, "to be or not to be that is the question", order);
        vex_array_push(order, vex_object(counts));
        if (round % 100 == 99) freed += vex_collect(heap);
    }
    /* Alive: the last array, its map, and the eight distinct words; "to" and "be" of the second time are gone. */
    expect("objects made", freed + heap->object_count, 2000 * 12); /* each round an array, a map, ten strings */
    expect("objects collected", freed, 24000 - 10);
    expect("objects alive", heap->object_count, 10);

    const vex_array_t *order = (const vex_array_t *)kept.as.object;
    const vex_map_t *counts = (const vex_map_t *)order->items[order->count - 1].as.object;
    expect("distinct words", counts->count, 8);
    expect("times \"be\"", (size_t)vex_map_get(counts, vex_string_new(heap, "be", 2)).as.integer, 2);

    /* A string that grows by joining: each step leaves the one before it to the collector. */
    vex_string_t *joined = vex_string_new(heap, "", 0);
    for (size_t i = 0; i + 1 < order->count; i++) {
        joined = vex_string_join(heap, joined, (const vex_string_t *)order->items[i].as.object);
    }
    char *text = vex_string_export(joined);
    printf("joined: %s\n", text);
    if (strcmp(text, "tobeornotthatisthequestion") != 0) failures++;

    /* Bug one: `text` is never freed; it was allocated in vex_string_export. Bug two: this copy, allocated here. */
    char *shout = vex_alloc(strlen(text) + 2);
    if (shout == NULL) return EXIT_FAILURE;
    strcat(strcpy(shout, text), "!");
    printf("shouted: %s\n", shout);

    vex_unroot(heap);
    vex_heap_free(heap);
    fflush(stdout);

    size_t live = ak_leaks_print();
    if (ak_track_get() != AK_TRACK_OFF && live != 2) failures++;
    ak_stats_print();
    return failures == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
