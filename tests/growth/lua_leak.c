/*
 * lua_leak.c - a module for Lua whose function forgets: forget(text) copies its argument and gives back
 * only the length (line 13). Compiled with -g; Lua loads it by require "lua_leak".
 */
#include "lauxlib.h"
#include "lua.h"

#include <stdlib.h>
#include <string.h>

static char *copy(const char *text, size_t length) {
    char *made;
    made = malloc(length + 1);
    if (made != NULL) memcpy(made, text, length + 1);
    return made;
}

static int forget(lua_State *state) {
    size_t length = 0;
    const char *text = luaL_checklstring(state, 1, &length);
    char *made = copy(text, length);
    if (made == NULL) return luaL_error(state, "no memory");
    __asm__ volatile("" : : "r"(made) : "memory");
    lua_pushinteger(state, (lua_Integer)length);
    return 1;
}

int luaopen_lua_leak(lua_State *state) {
    lua_newtable(state);
    lua_pushcfunction(state, forget);
    lua_setfield(state, -2, "forget");
    return 1;
}
