/*
 * loading.c - a shared object that uses the library is loaded while the program runs: one allocator, one state.
 * CHECK_PLUGIN names the object built from plugin.c.
 */
#include "check.h"

#include <dlfcn.h>

typedef void *(*alloc_fn)(size_t);
typedef void (*free_fn)(void *);
typedef const char *(*name_fn)(void);
typedef int (*thread_fn)(void);

static void *find(void *object, const char *name) {
    void *symbol = dlsym(object, name);
    CHECK_MSG(symbol != NULL, "%s", dlerror());
    return symbol;
}

TEST(dlopen_of_an_object_that_uses_the_library) {
    const char *path = getenv("CHECK_PLUGIN");
    if (path == NULL) SKIP("CHECK_PLUGIN is not set");
    ak_stats_t before, after;
    before.struct_size = after.struct_size = sizeof before;
    CHECK(ak_stats_get(&before));
    void *mine = ak_alloc(1000);
    void *plugin = dlopen(path, RTLD_NOW);
    CHECK_MSG(plugin != NULL, "%s", dlerror());
    alloc_fn plugin_alloc;
    free_fn plugin_free;
    name_fn plugin_backend;
    thread_fn plugin_thread;
    *(void **)(void *)&plugin_alloc = find(plugin, "plugin_alloc");
    *(void **)(void *)&plugin_free = find(plugin, "plugin_free");
    *(void **)(void *)&plugin_backend = find(plugin, "plugin_backend");
    *(void **)(void *)&plugin_thread = find(plugin, "plugin_thread");
    /* The same function and the same text, not two copies that happen to agree. */
    CHECK(plugin_backend() == ak_backend_name());
    void *theirs = plugin_alloc(2000);
    CHECK(mine != NULL && theirs != NULL);
    CHECK(plugin_thread() == 0);
    CHECK(ak_stats_get(&after));
    if (is_tracked()) CHECK(after.current_bytes - before.current_bytes == 3000);
    if (is_tracked()) {
        /* A leak of the plugin is named even when the plugin's own text is no longer mapped. */
        CHECK(dlclose(plugin) == 0);
        capture_begin();
        CHECK(ak_leaks_print() == 2);
        const char *printed = capture_end();
        CHECK_MSG(strstr(printed, " 2000 ") != NULL, "%s", printed);
        ak_free(mine);
        ak_free(theirs);
    } else {
        plugin_free(mine);
        ak_free(theirs);
        CHECK(dlclose(plugin) == 0);
    }
    CHECK(ak_fault_count() == 0);
    void *block = ak_alloc(10);
    CHECK(block != NULL);
    ak_free(block);
}
