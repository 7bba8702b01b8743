/*
 * vex.h - the runtime of a small dynamic language, Vex: values, strings, arrays, maps, and a mark-sweep heap.
 *
 * Objects belong to the heap: nobody frees them by hand. What is reachable from a root (vex_root) lives through
 * vex_collect, the rest goes.
 */
#ifndef VEX_H
#define VEX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum vex_kind { VEX_STRING, VEX_ARRAY, VEX_MAP } vex_kind_t;

/* The head of every object. */
typedef struct vex_object {
    struct vex_object *next; /* all objects of the heap, newest first */
    vex_kind_t kind;
    bool marked;
} vex_object_t;

typedef struct vex_string {
    vex_object_t head;
    uint32_t hash;
    size_t length;
    char bytes[]; /* length of them and a zero */
} vex_string_t;

typedef enum vex_tag { VEX_NIL, VEX_INTEGER, VEX_OBJECT } vex_tag_t;

typedef struct vex_value {
    vex_tag_t tag;
    union {
        int64_t integer;
        vex_object_t *object;
    } as;
} vex_value_t;

typedef struct vex_array {
    vex_object_t head;
    vex_value_t *items;
    size_t count, capacity;
} vex_array_t;

typedef struct vex_entry {
    vex_string_t *key; /* NULL: the entry is empty */
    vex_value_t value;
} vex_entry_t;

typedef struct vex_map {
    vex_object_t head;
    vex_entry_t *entries; /* open addressing, capacity a power of two, at most 3/4 full */
    size_t count, capacity;
} vex_map_t;

typedef struct vex_heap {
    vex_object_t *objects;
    vex_value_t **roots;
    size_t root_count, root_capacity;
    size_t object_count;
    vex_object_t **gray; /* marked, children not yet: a stack of its own, so that deep data cannot overflow C's */
    size_t gray_count, gray_capacity;
} vex_heap_t;

vex_heap_t *vex_heap_new(void);
void vex_heap_free(vex_heap_t *heap);
/* What *value holds lives until vex_unroot takes the newest root away. */
void vex_root(vex_heap_t *heap, vex_value_t *value);
void vex_unroot(vex_heap_t *heap);
/* Frees what no root reaches; returns how many objects. */
size_t vex_collect(vex_heap_t *heap);

vex_value_t vex_integer(int64_t integer);
vex_value_t vex_object(void *object);

vex_string_t *vex_string_new(vex_heap_t *heap, const char *bytes, size_t length);
vex_string_t *vex_string_join(vex_heap_t *heap, const vex_string_t *left, const vex_string_t *right);
/* The string as a C string that the caller frees with vex_free. */
char *vex_string_export(const vex_string_t *string);

vex_array_t *vex_array_new(vex_heap_t *heap);
void vex_array_push(vex_array_t *array, vex_value_t value);

vex_map_t *vex_map_new(vex_heap_t *heap);
void vex_map_set(vex_map_t *map, vex_string_t *key, vex_value_t value);
/* The value, or nil. */
vex_value_t vex_map_get(const vex_map_t *map, const vex_string_t *key);

#endif /* VEX_H */
