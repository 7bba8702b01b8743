/*
 * json.h - a JSON parser whose whole tree lies in an arena: no node is freed, the arena is reset.
 */
#ifndef EXAMPLE_JSON_H
#define EXAMPLE_JSON_H

#include "alloc.h"

typedef enum json_type { JSON_NULL, JSON_FALSE, JSON_TRUE, JSON_NUMBER, JSON_STRING, JSON_ARRAY, JSON_OBJECT } json_type_t;

/* A value. The members of an array or an object hang in a list, in their order. */
typedef struct json {
    json_type_t type;
    const char *key;   /* of an object's member, else NULL */
    struct json *next; /* the next member of the same array or object */
    union {
        double number;
        struct {
            const char *text; /* zero-terminated UTF-8 */
            size_t length;
        } string;
        struct {
            struct json *first;
            size_t count;
        } members;
    } as;
} json_t;

typedef struct json_error {
    const char *what;
    size_t at; /* bytes into the text */
} json_error_t;

/* The tree of a text, in the arena; it shares nothing with the text. NULL when the text is no JSON, or the arena is at its
 * limit: `error` says which and where, and the arena is as it was. */
json_t *json_parse(ak_arena_t *arena, const char *text, size_t length, json_error_t *error);

/* The member of an object, or NULL. */
const json_t *json_get(const json_t *object, const char *key);

#endif /* EXAMPLE_JSON_H */
