/*
 * redis_leak.c - a module for redis-server whose command forgets: LEAK.REMEMBER keeps a copy of its argument in a list that
 * nobody frees (line 31). Compiled with -g and loaded by the Debian package's server. What it needs of Redis' module API is
 * declared here: the first word of a context is the function that finds the others by name.
 */
#include <stdlib.h>
#include <string.h>

typedef struct RedisModuleCtx RedisModuleCtx;
typedef struct RedisModuleString RedisModuleString;
typedef int (*command_fn)(RedisModuleCtx *, RedisModuleString **, int);

static int (*get_api)(const char *name, void *function);
static void (*set_attributes)(RedisModuleCtx *, const char *name, int version, int api);
static int (*create_command)(RedisModuleCtx *, const char *name, command_fn, const char *flags, int first, int last, int step);
static const char *(*string_of)(const RedisModuleString *, size_t *length);
static int (*reply_number)(RedisModuleCtx *, long long);

struct note {
    struct note *next;
    char text[];
};
static struct note *notes;
static long long count;

static int remember(RedisModuleCtx *context, RedisModuleString **arguments, int given) {
    size_t length = 0;
    const char *text = given > 1 ? string_of(arguments[1], &length) : "";
    struct note *note;

    note = malloc(sizeof *note + length + 1);
    if (note == NULL) return 1;
    memcpy(note->text, text, length);
    note->text[length] = 0;
    note->next = notes;
    notes = note;
    return reply_number(context, ++count);
}

int RedisModule_OnLoad(RedisModuleCtx *context, RedisModuleString **arguments, int given) {
    (void)arguments;
    (void)given;
    memcpy(&get_api, context, sizeof get_api);
    if (get_api("RedisModule_SetModuleAttribs", &set_attributes) != 0 ||
        get_api("RedisModule_CreateCommand", &create_command) != 0 ||
        get_api("RedisModule_StringPtrLen", &string_of) != 0 ||
        get_api("RedisModule_ReplyWithLongLong", &reply_number) != 0)
        return 1;
    set_attributes(context, "leak", 1, 1);
    return create_command(context, "leak.remember", remember, "", 0, 0, 0);
}
