/*
 * 11_lua_limits - a host that runs scripts of others: each Lua state has a heap of its own with a limit. A script that takes
 * too much gets Lua's memory error; its state and all its memory end with the heap, and the host and the other states go on.
 *
 *   11_lua_limits [SCRIPT.lua ...]   each script in a state of its own, with a limit of 1 MiB; without scripts, four built in
 */
#include <alloc.h>

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <stdio.h>
#include <string.h>

typedef struct tenant {
    const char *name;
    const char *code; /* NULL: `name` is a file */
    int expected;     /* what the script shall come to */
} tenant_t;

static ak_heap_t *all;

/* What lua_State the host gives a tenant: heap and state, or NULL. */
static lua_State *open_state(const tenant_t *tenant, ak_heap_t **heap) {
    ak_heap_opts_t opts;
    memset(&opts, 0, sizeof opts);
    opts.struct_size = sizeof opts;
    opts.name = tenant->name;
    opts.limit = (size_t)1 << 20;
    opts.parent = all; /* so many tenants share 8 MiB */
    *heap = ak_heap_new(&opts);
    return *heap == NULL ? NULL : lua_newstate(ak_lua_alloc, *heap);
}

/* Everything that may run out of memory happens inside a protected call. */
static int run_script(lua_State *L) {
    const tenant_t *tenant = (const tenant_t *)lua_touserdata(L, 1);
    luaL_openlibs(L);
    int status = tenant->code != NULL ? luaL_loadstring(L, tenant->code) : luaL_loadfile(L, tenant->name);
    if (status != LUA_OK) return status == LUA_ERRMEM ? luaL_error(L, "not enough memory") : lua_error(L);
    lua_call(L, 0, 0);
    return 0;
}

static int run_tenant(const tenant_t *tenant, size_t *peak) {
    ak_heap_t *heap;
    lua_State *L = open_state(tenant, &heap);
    int status = LUA_ERRMEM;
    if (L != NULL) {
        lua_pushcfunction(L, run_script);
        lua_pushlightuserdata(L, (void *)tenant);
        status = lua_pcall(L, 1, 0, 0);
        if (status != LUA_OK) printf("%s: %s\n", tenant->name, lua_tostring(L, -1));
        /* No lua_close: the heap ends with all that the state has. (A script with files to close would want it.) */
    }
    ak_heap_stats_t st;
    st.struct_size = sizeof st;
    ak_heap_stats(heap, &st);
    *peak = st.peak_bytes;
    printf("%s: status %d, %zu of %zu bytes at most, %zu blocks live at the end, %zu refused\n", tenant->name, status,
           st.peak_bytes, st.limit_bytes, st.block_count, (size_t)st.failed_count);
    if (st.peak_bytes > st.limit_bytes) return -1;
    ak_heap_destroy(heap);
    return status;
}

static const char good[] = "local t = {} for i = 1, 2000 do t[i] = ('x'):rep(i % 100) end "
                           "assert(#table.concat(t) == 99000)";
static const char greedy[] = "local t = {} for i = 1, 1e9 do t[i] = ('x'):rep(100) .. i end";
static const char sly[] = "local s = 'x' while true do s = s .. s end";

int main(int argc, char **argv) {
    ak_heap_opts_t opts;
    memset(&opts, 0, sizeof opts);
    opts.struct_size = sizeof opts;
    opts.name = "tenants";
    opts.limit = (size_t)8 << 20;
    all = ak_heap_new(&opts);
    static const tenant_t built_in[] = {
        {"good", good, LUA_OK}, {"greedy", greedy, LUA_ERRMEM}, {"sly", sly, LUA_ERRMEM}, {"good again", good, LUA_OK}};
    int wrong = 0;
    size_t peak = 0;
    if (argc > 1) {
        for (int i = 1; i < argc; i++) {
            tenant_t tenant = {argv[i], NULL, LUA_OK};
            wrong += run_tenant(&tenant, &peak) != LUA_OK;
        }
    } else {
        for (int round = 0; round < 20; round++)
            for (size_t i = 0; i < sizeof built_in / sizeof *built_in; i++)
                wrong += run_tenant(&built_in[i], &peak) != built_in[i].expected;
    }
    ak_heap_stats_t st;
    st.struct_size = sizeof st;
    ak_heap_stats(all, &st);
    if (st.total_bytes != 0 || !ak_heap_destroy(all)) wrong++;
    printf("the host goes on: %d went wrong\n", wrong);
    return wrong != 0;
}
