/*
 * 08_json - ten thousand documents parsed, one after another, into one arena.
 *
 * The tree of a document has thousands of nodes and strings, and one lifetime: when the next document comes, all of it goes.
 * So nothing is freed one by one; ak_arena_reset ends the tree and keeps the memory for the next one. After the largest
 * document the arena takes no more from the allocator, and this program checks that.
 *
 *     ./08_json [documents]
 */
#include "json.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { KINDS = 64 }; /* documents differ in size; after so many they repeat */

static uint32_t random_next(uint32_t *state) {
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

/* A list of orders, as a shop might send it; `sum` is that of all prices in it. The pieces are temporaries: they live in a
 * scratch arena. */
static char *document(ak_arena_t *arena, uint32_t seed, int64_t *sum, size_t *orders) {
    ak_scratch_t scratch = ak_scratch_begin();
    uint32_t state = seed * 7919u + 1;
    *orders = 1 + random_next(&state) % 200;
    *sum = 0;
    size_t length = 0, room = 1000 + *orders * 400;
    char *text = ak_arena_alloc(scratch.arena, room);
    if (text == NULL) return NULL;
    length += (size_t)snprintf(text + length, room - length, "{\"shop\": \"Caf\\u00e9 \\ud83d\\ude00\", \"orders\": [");
    for (size_t i = 0; i < *orders; i++) {
        uint32_t price = random_next(&state) % 100000;
        *sum += price;
        length += (size_t)snprintf(text + length, room - length,
                                   "%s\n  {\"id\": %zu, \"price\": %" PRIu32 ", \"paid\": %s, \"note\": \"line\\n\\\"%0*d\\\"\", "
                                   "\"tags\": [null, -1.5e2, [], {}]}",
                                   i > 0 ? "," : "", i, price, price % 2 ? "true" : "false", (int)(price % 200) + 1, 7);
    }
    length += (size_t)snprintf(text + length, room - length, "\n]}\n");
    char *copy = ak_arena_strndup(arena, text, length);
    ak_scratch_end(scratch);
    return copy;
}

/* The sum of the prices, found in the tree; -1 when the tree is not that of the document. */
static int64_t sum_of(const json_t *tree, size_t orders) {
    const json_t *shop = json_get(tree, "shop"), *list = json_get(tree, "orders");
    if (shop == NULL || shop->type != JSON_STRING || strcmp(shop->as.string.text, "Caf\xc3\xa9 \xf0\x9f\x98\x80") != 0) return -1;
    if (list == NULL || list->type != JSON_ARRAY || list->as.members.count != orders) return -1;
    int64_t sum = 0;
    for (const json_t *order = list->as.members.first; order != NULL; order = order->next) {
        const json_t *price = json_get(order, "price"), *note = json_get(order, "note"), *tags = json_get(order, "tags");
        if (price == NULL || price->type != JSON_NUMBER || note == NULL || note->type != JSON_STRING) return -1;
        if (note->as.string.length != 8 + (size_t)price->as.number % 200 || tags == NULL || tags->as.members.count != 4) return -1;
        sum += (int64_t)price->as.number;
    }
    return sum;
}

static ak_arena_stats_t stats_of(ak_arena_t *arena) {
    ak_arena_stats_t st = {.struct_size = sizeof st};
    if (!ak_arena_stats(arena, &st)) exit(EXIT_FAILURE);
    return st;
}

/* Texts that are none: each is refused, and leaves the arena as it was. */
static bool refuses(ak_arena_t *arena) {
    static const char *const wrong[] = {"", "{", "[1,]", "{\"a\" 1}", "\"\\u12\"", "\"\\ud800x\"", "01", "-", "1.", "tru", "[1] 2", "\"a\nb\"", "\"\\"};
    size_t used = stats_of(arena).used_bytes;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        json_error_t error = {NULL, 0};
        if (json_parse(arena, wrong[i], strlen(wrong[i]), &error) != NULL || error.what == NULL) {
            fprintf(stderr, "json: %s was taken for a document\n", wrong[i]);
            return false;
        }
    }
    char deep[1000];
    json_error_t error = {NULL, 0};
    memset(deep, '[', sizeof deep);
    if (json_parse(arena, deep, sizeof deep, &error) != NULL || strcmp(error.what, "nested too deeply") != 0) return false;
    /* The mark at the start of a parse may cost its 16 bytes. */
    return stats_of(arena).used_bytes <= used + 16;
}

int main(int argc, char **argv) {
    long documents = argc > 1 ? strtol(argv[1], NULL, 10) : 10000;
    if (documents < 2 * KINDS) {
        fprintf(stderr, "usage: json [documents]   (%d at least)\n", 2 * KINDS);
        return 2;
    }
    ak_arena_t *arena = ak_arena_new(&(ak_arena_opts_t){.struct_size = sizeof(ak_arena_opts_t), .name = "documents", .limit = 8 << 20});
    if (arena == NULL || !refuses(arena)) return EXIT_FAILURE;
    size_t bytes = 0, chunks = 0, reserved = 0;
    for (long i = 0; i < documents; i++) {
        ak_arena_reset(arena);
        int64_t sum;
        size_t orders;
        json_error_t error;
        char *text = document(arena, (uint32_t)(i % KINDS), &sum, &orders);
        if (text == NULL) return EXIT_FAILURE;
        json_t *tree = json_parse(arena, text, strlen(text), &error);
        if (tree == NULL) {
            fprintf(stderr, "json: document %ld, byte %zu: %s\n", i, error.at, error.what);
            return EXIT_FAILURE;
        }
        if (sum_of(tree, orders) != sum) {
            fprintf(stderr, "json: document %ld was not read as it was written\n", i);
            return EXIT_FAILURE;
        }
        bytes += strlen(text);
        ak_arena_stats_t st = stats_of(arena);
        if (i == KINDS - 1) { /* each kind was there once */
            chunks = st.chunk_count;
            reserved = st.reserved_bytes;
        } else if (i >= KINDS && (st.chunk_count != chunks || st.reserved_bytes != reserved)) {
            fprintf(stderr, "json: document %ld: %zu chunks, %zu bytes; there were %zu, %zu\n", i, st.chunk_count, st.reserved_bytes, chunks, reserved);
            return EXIT_FAILURE;
        }
    }
    ak_arena_stats_t st = stats_of(arena);
    printf("%ld documents, %zu bytes of text, all right\n", documents, bytes);
    printf("the arena: %zu chunks, %zu KiB, the same since document %d; at most %zu KiB were in use\n", st.chunk_count,
           st.reserved_bytes / 1024, KINDS, st.peak_bytes / 1024);
    ak_arena_destroy(arena);
    return EXIT_SUCCESS;
}
