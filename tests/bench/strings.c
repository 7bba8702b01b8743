/*
 * A table of strings: keys are made, looked up, inserted with a copied value, deleted; the table grows by rehashing.
 */
#include "bench.h"

enum { KEYS = 200000, STEPS = 1200000 };

typedef struct entry {
    struct entry *next;
    uint64_t hash;
    char *key, *value;
} entry_t;

typedef struct table {
    entry_t **places;
    size_t room, count;
} table_t;

static uint64_t hash_of(const char *text)
{
    uint64_t hash = UINT64_C(1469598103934665603);
    for (; *text != 0; text++) hash = (hash ^ (unsigned char)*text) * UINT64_C(1099511628211);
    return hash ^ hash >> 29;
}

static char *copy(const char *text)
{
    size_t size = strlen(text) + 1;
    return memcpy(must(malloc(size)), text, size);
}

static void rehash(table_t *table)
{
    size_t room = table->room * 2;
    entry_t **places = must(calloc(room, sizeof *places));
    for (size_t i = 0; i < table->room; i++) {
        for (entry_t *entry = table->places[i], *next; entry != NULL; entry = next) {
            next = entry->next;
            entry->next = places[entry->hash % room];
            places[entry->hash % room] = entry;
        }
    }
    free(table->places);
    table->places = places;
    table->room = room;
}

static void drop(entry_t *entry)
{
    free(entry->key);
    free(entry->value);
    free(entry);
}

static void *work(void *arg)
{
    worker_t *worker = arg;
    table_t table = {.places = must(calloc(64, sizeof(entry_t *))), .room = 64, .count = 0};
    uint64_t steps = scaled(worker->bench, STEPS);
    for (uint64_t i = 0; i < steps; i++) {
        uint64_t r = next_random(&worker->seed);
        char text[96];
        static const char filling[] = "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz";
        /* Without printf, which would take most of the time. */
        size_t length = 0;
        for (uint64_t number = r % KEYS; number != 0 || length < 2; number >>= 4) text[length++] = "0123456789abcdef"[number & 15];
        size_t more = (size_t)(r % KEYS % 40);
        memcpy(text + length, filling, more);
        text[length + more] = 0;
        char *key = copy(text); /* as a parser would hand it over */
        uint64_t hash = hash_of(key);
        entry_t **place = &table.places[hash % table.room];
        while (*place != NULL && ((*place)->hash != hash || strcmp((*place)->key, key) != 0)) place = &(*place)->next;
        if (*place == NULL) {
            entry_t *entry = must(malloc(sizeof *entry));
            text[length + more / 2] = 0;
            *entry = (entry_t){.hash = hash, .key = key, .value = copy(text)};
            *place = entry;
            worker->ops += 3;
            if (++table.count > table.room) rehash(&table);
        } else if ((r >> 40) % 3 == 0) {
            entry_t *gone = *place;
            *place = gone->next;
            drop(gone);
            free(key);
            table.count--;
            worker->ops++;
        } else {
            entry_t *entry = *place;
            free(entry->value);
            entry->value = key;
            worker->ops++;
        }
    }
    for (size_t i = 0; i < table.room; i++) {
        for (entry_t *entry = table.places[i], *next; entry != NULL; entry = next) {
            next = entry->next;
            worker->check += strlen(entry->value) + entry->hash;
            drop(entry);
        }
    }
    free(table.places);
    return NULL;
}

int main(int argc, char **argv)
{
    bench_t bench = bench_begin(argc, argv, 1, "");
    worker_t sum = run_workers(&bench, work, NULL, bench.threads);
    return bench_end(&bench, sum.ops, sum.check);
}
