/* vex.c - the runtime: every block it takes comes through vex_alloc.h. Out of memory ends the program with a message. */
#include "vex.h"

#include "vex_alloc.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Takes a result of vex_alloc and the like: not NULL, or the program ends. A function, since it allocates nothing. */
static void *must(void *block) {
    if (block != NULL) return block;
    fprintf(stderr, "vex: out of memory\n");
    exit(EXIT_FAILURE);
}

/* ---- values ---- */

vex_value_t vex_integer(int64_t integer) {
    return (vex_value_t){.tag = VEX_INTEGER, .as = {.integer = integer}};
}

vex_value_t vex_object(void *object) {
    return (vex_value_t){.tag = VEX_OBJECT, .as = {.object = object}};
}

/* ---- the heap ---- */

vex_heap_t *vex_heap_new(void) {
    return must(vex_new(vex_heap_t));
}

static void adopt(vex_heap_t *heap, vex_object_t *object, vex_kind_t kind) {
    object->kind = kind;
    object->marked = false;
    object->next = heap->objects;
    heap->objects = object;
    heap->object_count++;
}

static void object_free(vex_object_t *object) {
    switch (object->kind) {
    case VEX_STRING: break;
    case VEX_ARRAY: vex_free(((vex_array_t *)object)->items); break;
    case VEX_MAP: vex_free(((vex_map_t *)object)->entries); break;
    }
    vex_free(object);
}

void vex_heap_free(vex_heap_t *heap) {
    while (heap->objects != NULL) {
        vex_object_t *object = heap->objects;
        heap->objects = object->next;
        object_free(object);
    }
    vex_free(heap->roots);
    vex_free(heap->gray);
    vex_free(heap);
}

void vex_root(vex_heap_t *heap, vex_value_t *value) {
    if (heap->root_count == heap->root_capacity) {
        heap->root_capacity = heap->root_capacity == 0 ? 8 : heap->root_capacity * 2;
        heap->roots = must(vex_resize(heap->roots, vex_value_t *, heap->root_capacity));
    }
    heap->roots[heap->root_count++] = value;
}

void vex_unroot(vex_heap_t *heap) {
    heap->root_count--;
}

static void mark(vex_heap_t *heap, vex_object_t *object) {
    if (object->marked) return;
    object->marked = true;
    if (heap->gray_count == heap->gray_capacity) {
        heap->gray_capacity = heap->gray_capacity == 0 ? 64 : heap->gray_capacity * 2;
        heap->gray = must(vex_resize(heap->gray, vex_object_t *, heap->gray_capacity));
    }
    heap->gray[heap->gray_count++] = object;
}

static void mark_value(vex_heap_t *heap, vex_value_t value) {
    if (value.tag == VEX_OBJECT) mark(heap, value.as.object);
}

static void mark_children(vex_heap_t *heap, vex_object_t *object) {
    if (object->kind == VEX_ARRAY) {
        const vex_array_t *array = (const vex_array_t *)object;
        for (size_t i = 0; i < array->count; i++) mark_value(heap, array->items[i]);
    } else if (object->kind == VEX_MAP) {
        const vex_map_t *map = (const vex_map_t *)object;
        for (size_t i = 0; i < map->capacity; i++) {
            if (map->entries[i].key == NULL) continue;
            mark(heap, &map->entries[i].key->head);
            mark_value(heap, map->entries[i].value);
        }
    }
}

size_t vex_collect(vex_heap_t *heap) {
    for (size_t i = 0; i < heap->root_count; i++) mark_value(heap, *heap->roots[i]);
    while (heap->gray_count > 0) mark_children(heap, heap->gray[--heap->gray_count]);

    size_t freed = 0;
    vex_object_t **link = &heap->objects;
    while (*link != NULL) {
        vex_object_t *object = *link;
        if (object->marked) {
            object->marked = false;
            link = &object->next;
        } else {
            *link = object->next;
            object_free(object);
            freed++;
        }
    }
    heap->object_count -= freed;
    return freed;
}

/* ---- strings ---- */

static uint32_t hash_of(const char *bytes, size_t length) {
    uint32_t hash = 2166136261u; /* FNV-1a */
    for (size_t i = 0; i < length; i++) hash = (hash ^ (unsigned char)bytes[i]) * 16777619u;
    return hash;
}

/* A string object with room for `length` bytes, not filled in yet. */
static vex_string_t *string_raw(vex_heap_t *heap, size_t length) {
    vex_string_t *string = must(vex_alloc(sizeof(vex_string_t) + length + 1));
    string->length = length;
    string->bytes[length] = '\0';
    adopt(heap, &string->head, VEX_STRING);
    return string;
}

vex_string_t *vex_string_new(vex_heap_t *heap, const char *bytes, size_t length) {
    vex_string_t *string = string_raw(heap, length);
    memcpy(string->bytes, bytes, length);
    string->hash = hash_of(bytes, length);
    return string;
}

vex_string_t *vex_string_join(vex_heap_t *heap, const vex_string_t *left, const vex_string_t *right) {
    vex_string_t *string = string_raw(heap, left->length + right->length);
    memcpy(string->bytes, left->bytes, left->length);
    memcpy(string->bytes + left->length, right->bytes, right->length);
    string->hash = hash_of(string->bytes, string->length);
    return string;
}

char *vex_string_export(const vex_string_t *string) {
    char *copy = must(vex_alloc(string->length + 1));
    memcpy(copy, string->bytes, string->length + 1);
    return copy;
}

/* ---- arrays ---- */

vex_array_t *vex_array_new(vex_heap_t *heap) {
    vex_array_t *array = must(vex_new(vex_array_t));
    adopt(heap, &array->head, VEX_ARRAY);
    return array;
}

void vex_array_push(vex_array_t *array, vex_value_t value) {
    if (array->count == array->capacity) {
        array->capacity = array->capacity == 0 ? 4 : array->capacity + array->capacity / 2;
        array->items = must(vex_resize(array->items, vex_value_t, array->capacity));
    }
    array->items[array->count++] = value;
}

/* ---- maps ---- */

vex_map_t *vex_map_new(vex_heap_t *heap) {
    vex_map_t *map = must(vex_new(vex_map_t));
    adopt(heap, &map->head, VEX_MAP);
    return map;
}

/* The entry of the key, or the empty one where it belongs. */
static vex_entry_t *find(vex_entry_t *entries, size_t capacity, const vex_string_t *key) {
    size_t at = key->hash & (capacity - 1);
    for (;;) {
        vex_entry_t *entry = &entries[at];
        if (entry->key == NULL) return entry;
        if (entry->key->hash == key->hash && entry->key->length == key->length &&
            memcmp(entry->key->bytes, key->bytes, key->length) == 0) {
            return entry;
        }
        at = (at + 1) & (capacity - 1);
    }
}

static void map_grow(vex_map_t *map) {
    size_t capacity = map->capacity == 0 ? 8 : map->capacity * 2;
    vex_entry_t *entries = must(vex_array(vex_entry_t, capacity));
    for (size_t i = 0; i < map->capacity; i++) {
        if (map->entries[i].key != NULL) *find(entries, capacity, map->entries[i].key) = map->entries[i];
    }
    vex_free(map->entries);
    map->entries = entries;
    map->capacity = capacity;
}

void vex_map_set(vex_map_t *map, vex_string_t *key, vex_value_t value) {
    if ((map->count + 1) * 4 > map->capacity * 3) map_grow(map);
    vex_entry_t *entry = find(map->entries, map->capacity, key);
    if (entry->key == NULL) {
        entry->key = key;
        map->count++;
    }
    entry->value = value;
}

vex_value_t vex_map_get(const vex_map_t *map, const vex_string_t *key) {
    if (map->capacity == 0) return (vex_value_t){.tag = VEX_NIL, .as = {.integer = 0}};
    const vex_entry_t *entry = find(map->entries, map->capacity, key);
    return entry->key != NULL ? entry->value : (vex_value_t){.tag = VEX_NIL, .as = {.integer = 0}};
}
