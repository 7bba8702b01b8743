/*
 * plugin.c - a shared object that uses the library, loaded by loading.c while the program runs.
 */
#include <alloc.h>

#include <pthread.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

__attribute__((visibility("default"))) void *plugin_alloc(size_t size);
__attribute__((visibility("default"))) void plugin_free(void *block);
__attribute__((visibility("default"))) const char *plugin_backend(void);
__attribute__((visibility("default"))) int plugin_thread(void);

void *plugin_alloc(size_t size) { return ak_alloc(size); }
void plugin_free(void *block) { ak_free(block); }
const char *plugin_backend(void) { return ak_backend_name(); }

static int failed;
static void *work(void *argument) {
    for (size_t i = 0; i < 1000; i++) {
        void *block = ak_calloc(1, i);
        if (block == NULL) failed = 1;
        else memset(block, 1, i);
        ak_free(block);
    }
    return argument;
}

int plugin_thread(void) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, work, NULL) != 0) return 1;
    pthread_join(thread, NULL);
    return failed;
}

#ifdef __cplusplus
}
#endif
