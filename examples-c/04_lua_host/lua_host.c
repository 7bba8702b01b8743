/*
 * 04_lua_host - a Lua 5.4 host whose interpreters get all their memory from Allokit.
 *
 *     ./04_lua_host [repeats] script.lua ...
 *
 * Lua asks for memory through one function, lua_Alloc: it allocates, resizes and frees. ak_realloc was made to fit it
 * (size 0 frees and returns NULL), so that the adapter is three lines; the rest of it keeps a budget and the books.
 *
 * Each script runs in a state of its own, checks its own results with assert, and returns one line that says what it
 * did. All the states of a round live at the same time. The line must be the same in every round.
 */
#include "alloc.h"

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What a state may take, and what it has taken. One for each state: a script cannot eat the memory of another. */
typedef struct budget {
    size_t used;
    size_t peak;
    size_t limit;
} budget_t;

#define STATE_LIMIT ((size_t)256 << 20)

/* The lua_Alloc. For a new block (ptr NULL) osize is a type tag, not a size. Returning NULL makes Lua collect its
 * garbage and try once more, then raise "not enough memory" inside the script: nothing else needs to be done. */
static void *host_alloc(void *ud, void *ptr, size_t osize, size_t nsize) {
    budget_t *budget = ud;
    size_t old = ptr != NULL ? osize : 0;
    if (nsize > old && nsize - old > budget->limit - budget->used) return NULL;

    void *block = NULL;
    if (nsize != 0) {
        block = ak_realloc(ptr, nsize);
        if (block == NULL) return NULL;
    } else if (ptr != NULL) {
        ak_free_sized(ptr, osize); /* Lua remembers the sizes of its blocks; some backends free faster knowing them */
    }
    budget->used = budget->used - old + nsize;
    if (budget->used > budget->peak) budget->peak = budget->used;
    return block;
}

static int host_run_state(lua_State *L);

/* A state with the standard library and `host.run_state`. NULL when memory is short. */
static lua_State *state_new(budget_t *budget) {
    *budget = (budget_t){.limit = STATE_LIMIT};
    lua_State *L = lua_newstate(host_alloc, budget);
    if (L == NULL) return NULL;
    luaL_openlibs(L);
    lua_newtable(L);
    lua_pushcfunction(L, host_run_state);
    lua_setfield(L, -2, "run_state");
    lua_setglobal(L, "host");
    return L;
}

/* Closes the state; every byte it took must be back. */
static bool state_close(lua_State *L, const budget_t *budget) {
    lua_close(L);
    if (budget->used == 0) return true;
    fprintf(stderr, "lua_host: a closed state still holds %zu bytes\n", budget->used);
    return false;
}

/* host.run_state(source, argument): runs the source in a state of its own, with the argument as `...`, and returns the
 * string that it returns. States share nothing but strings that are copied between them. */
static int host_run_state(lua_State *L) {
    size_t length;
    const char *source = luaL_checklstring(L, 1, &length);
    const char *argument = luaL_checkstring(L, 2);

    budget_t budget;
    lua_State *child = state_new(&budget);
    if (child == NULL) return luaL_error(L, "no memory for a state");
    int status = luaL_loadbuffer(child, source, length, "=child");
    if (status == LUA_OK) {
        lua_pushstring(child, argument);
        status = lua_pcall(child, 1, 1, 0);
    }
    const char *result = lua_tostring(child, -1);
    lua_pushstring(L, result != NULL ? result : "(no string)");
    if (!state_close(child, &budget)) return luaL_error(L, "the child state leaks");
    return status == LUA_OK ? 1 : lua_error(L);
}

/* One script in each of the states of a round. */
typedef struct job {
    const char *path;
    lua_State *state;
    budget_t budget;
    char *summary; /* what the script returned in the first round */
    size_t peak;
} job_t;

static const char *base_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash != NULL ? slash + 1 : path;
}

/* Runs the job's script in its state; false after a message when it fails or says something else than before. */
static bool job_run(job_t *job) {
    if (luaL_loadfile(job->state, job->path) != LUA_OK || lua_pcall(job->state, 0, 1, 0) != LUA_OK) {
        const char *message = lua_tostring(job->state, -1);
        fprintf(stderr, "lua_host: %s: %s\n", base_name(job->path), message != NULL ? message : "error without a text");
        return false;
    }
    const char *summary = lua_tostring(job->state, -1);
    if (summary == NULL) {
        fprintf(stderr, "lua_host: %s returns no summary\n", base_name(job->path));
        return false;
    }
    if (job->summary == NULL) {
        job->summary = ak_strdup(summary);
    } else if (strcmp(job->summary, summary) != 0) {
        fprintf(stderr, "lua_host: %s returned \"%s\", then \"%s\"\n", base_name(job->path), job->summary, summary);
        return false;
    }
    if (job->budget.peak > job->peak) job->peak = job->budget.peak;
    return job->summary != NULL;
}

/* All jobs once: first all the states, then all the scripts, then all are closed in the order of their making. */
static bool round_run(job_t *jobs, size_t count) {
    bool good = true;
    for (size_t i = 0; i < count; i++) {
        jobs[i].state = state_new(&jobs[i].budget);
        if (jobs[i].state == NULL) {
            fprintf(stderr, "lua_host: out of memory\n");
            good = false;
        }
    }
    for (size_t i = 0; i < count && good; i++) good = job_run(&jobs[i]);
    for (size_t i = 0; i < count; i++) {
        if (jobs[i].state != NULL && !state_close(jobs[i].state, &jobs[i].budget)) good = false;
    }
    return good;
}

int main(int argc, char **argv) {
    long repeats = 1;
    int first = 1;
    if (argc > 1) {
        char *end;
        long number = strtol(argv[1], &end, 10);
        if (end != argv[1] && *end == '\0') {
            repeats = number;
            first = 2;
        }
    }
    if (first >= argc || repeats < 1) {
        fprintf(stderr, "usage: lua_host [repeats] script.lua ...   (repeats: 1 or more)\n");
        return 2;
    }

    size_t count = (size_t)(argc - first);
    job_t *jobs = AK_ARRAY(job_t, count);
    if (jobs == NULL) return EXIT_FAILURE;
    for (size_t i = 0; i < count; i++) jobs[i].path = argv[first + (int)i];

    bool good = true;
    for (long round = 0; round < repeats && good; round++) good = round_run(jobs, count);

    for (size_t i = 0; i < count; i++) {
        if (good) printf("%s: %s\n", base_name(jobs[i].path), jobs[i].summary);
        ak_free(jobs[i].summary);
    }
    AK_FREE(jobs);

    /* Every state is closed and every line is freed: with tracking on, Allokit can say whether that is so. */
    if (ak_track_get() != AK_TRACK_OFF && !ak_assert_balanced("lua_host")) good = false;
    if (good) printf("%zu scripts, %ld rounds, all results right\n", count, repeats);
    return good ? EXIT_SUCCESS : EXIT_FAILURE;
}
