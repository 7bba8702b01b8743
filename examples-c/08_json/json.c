#include "json.h"

#include <stdlib.h>
#include <string.h>

enum { DEEPEST = 200 }; /* the parser calls itself: a text must not choose how far */

typedef struct parser {
    ak_arena_t *arena;
    const char *at, *end;
    const char *what; /* the first error, or NULL */
    int depth;
} parser_t;

static json_t *parse_value(parser_t *p);

static void *fail(parser_t *p, const char *what) {
    if (p->what == NULL) p->what = what;
    return NULL;
}

static void skip_space(parser_t *p) {
    while (p->at < p->end && (*p->at == ' ' || *p->at == '\t' || *p->at == '\n' || *p->at == '\r')) p->at++;
}

static bool take(parser_t *p, char c) {
    if (p->at == p->end || *p->at != c) return false;
    p->at++;
    return true;
}

static json_t *value_new(parser_t *p, json_type_t type) {
    json_t *value = ak_arena_calloc(p->arena, 1, sizeof *value);
    if (value == NULL) return fail(p, "out of memory");
    value->type = type;
    return value;
}

/* ---- strings ---- */

static int hex4(const char *at) {
    int code = 0;
    for (int i = 0; i < 4; i++) {
        char c = at[i];
        int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
        if (digit < 0) return -1;
        code = code * 16 + digit;
    }
    return code;
}

/* After "\u"; a code beyond 16 bits is a pair of them. -1 when it is none. */
static long parse_code(parser_t *p) {
    if (p->end - p->at < 4) return -1;
    long code = hex4(p->at);
    p->at += 4;
    if (code < 0xD800 || code > 0xDFFF) return code;
    if (code > 0xDBFF || p->end - p->at < 6 || p->at[0] != '\\' || p->at[1] != 'u') return -1;
    long low = hex4(p->at + 2);
    p->at += 6;
    return low < 0xDC00 || low > 0xDFFF ? -1 : 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
}

static char *put_utf8(char *to, long code) {
    if (code < 0x80) {
        *to++ = (char)code;
    } else if (code < 0x800) {
        *to++ = (char)(0xC0 | code >> 6);
        *to++ = (char)(0x80 | (code & 0x3F));
    } else {
        if (code < 0x10000) {
            *to++ = (char)(0xE0 | code >> 12);
        } else {
            *to++ = (char)(0xF0 | code >> 18);
            *to++ = (char)(0x80 | (code >> 12 & 0x3F));
        }
        *to++ = (char)(0x80 | (code >> 6 & 0x3F));
        *to++ = (char)(0x80 | (code & 0x3F));
    }
    return to;
}

/* The text between two quotes, the first of which is taken. No escape is shorter than what it stands for, so the place up to
 * the next quote that is not escaped is enough; what is left over goes back to the arena. */
static char *parse_text(parser_t *p, size_t *length) {
    const char *close = p->at;
    while (close < p->end && *close != '"') close += *close == '\\' ? 2 : 1;
    if (close >= p->end) return fail(p, "a string has no end");
    size_t room = (size_t)(close - p->at) + 1;
    char *text = ak_arena_alloc(p->arena, room), *to = text;
    if (text == NULL) return fail(p, "out of memory");
    while (p->at < close) {
        char c = *p->at++;
        if ((unsigned char)c < 0x20) return fail(p, "a control character in a string");
        if (c != '\\') {
            *to++ = c;
            continue;
        }
        c = *p->at++;
        if (c == 'u') {
            long code = parse_code(p);
            if (code < 0) return fail(p, "a wrong \\u in a string");
            to = put_utf8(to, code);
        } else {
            static const char names[] = "\"\\/bfnrt", stands_for[] = "\"\\/\b\f\n\r\t";
            const char *name = memchr(names, c, sizeof names - 1);
            if (name == NULL) return fail(p, "a wrong escape in a string");
            *to++ = stands_for[name - names];
        }
    }
    p->at = close + 1;
    *to = 0;
    *length = (size_t)(to - text);
    /* It is the newest block, so this moves the arena's pointer and nothing else. */
    return ak_arena_realloc(p->arena, text, room, *length + 1);
}

/* ---- values ---- */

static bool digits(parser_t *p) {
    const char *from = p->at;
    while (p->at < p->end && *p->at >= '0' && *p->at <= '9') p->at++;
    return p->at > from;
}

static json_t *parse_number(parser_t *p) {
    const char *from = p->at;
    take(p, '-');
    if (!take(p, '0') && !digits(p)) return fail(p, "a value was expected");
    if (take(p, '.') && !digits(p)) return fail(p, "digits were expected");
    if (take(p, 'e') || take(p, 'E')) {
        if (!take(p, '+')) take(p, '-');
        if (!digits(p)) return fail(p, "digits were expected");
    }
    json_t *value = value_new(p, JSON_NUMBER);
    if (value == NULL) return NULL;
    /* strtod wants a text that ends: a temporary copy, given back at once. */
    ak_arena_mark_t mark = ak_arena_mark(p->arena);
    char *copy = ak_arena_strndup(p->arena, from, (size_t)(p->at - from));
    if (copy == NULL) return fail(p, "out of memory");
    value->as.number = strtod(copy, NULL);
    ak_arena_rewind(p->arena, mark);
    return value;
}

static json_t *parse_word(parser_t *p, const char *word, json_type_t type) {
    size_t length = strlen(word);
    if ((size_t)(p->end - p->at) < length || memcmp(p->at, word, length) != 0) return fail(p, "a value was expected");
    p->at += length;
    return value_new(p, type);
}

/* An array, or with `close` '}' an object: the same but for the keys. */
static json_t *parse_members(parser_t *p, json_type_t type, char close) {
    json_t *value = value_new(p, type);
    if (value == NULL) return NULL;
    json_t **last = &value->as.members.first;
    skip_space(p);
    if (take(p, close)) return value;
    do {
        char *key = NULL;
        size_t length;
        skip_space(p);
        if (type == JSON_OBJECT) {
            if (!take(p, '"')) return fail(p, "a key was expected");
            key = parse_text(p, &length);
            if (key == NULL) return NULL;
            skip_space(p);
            if (!take(p, ':')) return fail(p, "a colon was expected");
        }
        json_t *member = parse_value(p);
        if (member == NULL) return NULL;
        member->key = key;
        *last = member;
        last = &member->next;
        value->as.members.count++;
        skip_space(p);
    } while (take(p, ','));
    return take(p, close) ? value : fail(p, "a comma or the end was expected");
}

static json_t *parse_value(parser_t *p) {
    json_t *value;
    skip_space(p);
    if (p->depth == DEEPEST) return fail(p, "nested too deeply");
    p->depth++;
    switch (p->at < p->end ? *p->at : 0) {
    case '{':
        p->at++;
        value = parse_members(p, JSON_OBJECT, '}');
        break;
    case '[':
        p->at++;
        value = parse_members(p, JSON_ARRAY, ']');
        break;
    case '"':
        p->at++;
        value = value_new(p, JSON_STRING);
        if (value != NULL && (value->as.string.text = parse_text(p, &value->as.string.length)) == NULL) value = NULL;
        break;
    case 't': value = parse_word(p, "true", JSON_TRUE); break;
    case 'f': value = parse_word(p, "false", JSON_FALSE); break;
    case 'n': value = parse_word(p, "null", JSON_NULL); break;
    default: value = parse_number(p); break;
    }
    p->depth--;
    return value;
}

json_t *json_parse(ak_arena_t *arena, const char *text, size_t length, json_error_t *error) {
    parser_t p = {.arena = arena, .at = text, .end = text + length};
    ak_arena_mark_t mark = ak_arena_mark(arena);
    json_t *value = parse_value(&p);
    skip_space(&p);
    if (value != NULL && p.at != p.end) value = fail(&p, "something follows the value");
    if (value == NULL) {
        *error = (json_error_t){p.what, (size_t)(p.at - text)};
        ak_arena_rewind(arena, mark); /* half a tree is of no use */
    }
    return value;
}

const json_t *json_get(const json_t *object, const char *key) {
    if (object == NULL || object->type != JSON_OBJECT) return NULL;
    for (const json_t *member = object->as.members.first; member != NULL; member = member->next)
        if (strcmp(member->key, key) == 0) return member;
    return NULL;
}
