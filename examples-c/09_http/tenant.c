#include "tenant.h"

#include <pthread.h>
#include <string.h>

enum { MOST_TENANTS = 64, BUCKETS = 256, LIMIT = 64 << 10 };

typedef struct entry {
    struct entry *next;
    size_t key_length, length;
    char bytes[]; /* the key, a zero byte, the value, a zero byte */
} entry_t;

struct tenant {
    char name[32];
    pthread_mutex_t lock;
    entry_t *buckets[BUCKETS];
    ak_heap_t *heap;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static tenant_t *tenants[MOST_TENANTS];
static size_t count;

/* ---- the tenant's memory: a heap of its own, with a limit; what it has ends with it ---- */

static bool tenant_memory_begin(tenant_t *tenant) {
    ak_heap_opts_t opts = {sizeof opts, tenant->name, LIMIT, NULL};
    tenant->heap = ak_heap_new(&opts);
    return tenant->heap != NULL;
}

/* ---- entries ---- */

static entry_t **place_of(tenant_t *tenant, const char *key) {
    uint32_t hash = 2166136261u;
    for (const char *at = key; *at != 0; at++) hash = (hash ^ (unsigned char)*at) * 16777619u;
    entry_t **place = &tenant->buckets[hash % BUCKETS];
    while (*place != NULL && strcmp((*place)->bytes, key) != 0) place = &(*place)->next;
    return place;
}

bool tenant_put(tenant_t *tenant, const char *key, const char *value, size_t length) {
    size_t key_length = strlen(key);
    pthread_mutex_lock(&tenant->lock);
    /* The new one first: if it cannot be had, the old one is still there. */
    entry_t *entry = ak_heap_alloc(tenant->heap, sizeof *entry + key_length + length + 2);
    if (entry != NULL) {
        entry->key_length = key_length;
        entry->length = length;
        memcpy(entry->bytes, key, key_length + 1);
        memcpy(entry->bytes + key_length + 1, value, length);
        entry->bytes[key_length + 1 + length] = 0;
        entry_t **place = place_of(tenant, key), *old = *place;
        entry->next = old != NULL ? old->next : NULL;
        *place = entry;
        ak_heap_free(tenant->heap, old);
    }
    pthread_mutex_unlock(&tenant->lock);
    return entry != NULL;
}

const char *tenant_get(tenant_t *tenant, ak_arena_t *arena, const char *key, size_t *length) {
    const char *copy = NULL;
    pthread_mutex_lock(&tenant->lock);
    const entry_t *entry = *place_of(tenant, key);
    if (entry != NULL) {
        *length = entry->length;
        copy = ak_arena_memdup(arena, entry->bytes + entry->key_length + 1, entry->length + 1);
    }
    pthread_mutex_unlock(&tenant->lock);
    return copy;
}

/* ---- tenants ---- */

tenant_t *tenant_find(const char *name, size_t length) {
    tenant_t *found = NULL;
    if (length == 0 || length >= sizeof found->name) return NULL;
    pthread_mutex_lock(&lock);
    for (size_t i = 0; i < count && found == NULL; i++)
        if (strlen(tenants[i]->name) == length && memcmp(tenants[i]->name, name, length) == 0) found = tenants[i];
    if (found == NULL && count < MOST_TENANTS && (found = AK_NEW(tenant_t)) != NULL) {
        memcpy(found->name, name, length);
        pthread_mutex_init(&found->lock, NULL);
        if (tenant_memory_begin(found)) {
            tenants[count++] = found;
        } else {
            AK_FREE(found);
        }
    }
    pthread_mutex_unlock(&lock);
    return found;
}

size_t tenant_used(tenant_t *tenant) {
    ak_heap_stats_t stats = {.struct_size = sizeof stats};
    return ak_heap_stats(tenant->heap, &stats) ? stats.current_bytes : 0;
}

void tenants_destroy(void) {
    while (count > 0) {
        tenant_t *tenant = tenants[--count];
        ak_heap_destroy(tenant->heap); /* and every entry with it */
        pthread_mutex_destroy(&tenant->lock);
        AK_FREE(tenant);
    }
}
