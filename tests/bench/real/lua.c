/*
 * Runs Lua scripts, each in a state of its own, with the memory functions that Lua brings. Usage: lua ROUNDS SCRIPT...
 */
#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
    for (int rounds = argc > 1 ? atoi(argv[1]) : 0; rounds > 0; rounds--) {
        for (int i = 2; i < argc; i++) {
            lua_State *L = luaL_newstate();
            if (L == NULL) return 1;
            luaL_openlibs(L);
            if (luaL_dofile(L, argv[i])) {
                fprintf(stderr, "lua: %s\n", lua_tostring(L, -1));
                return 1;
            }
            if (rounds == 1) puts(luaL_tolstring(L, -1, NULL));
            lua_close(L);
        }
    }
    return 0;
}
