/* plugin.c - a shared object that allocates and frees: opened by cases.c. */
#include <stdlib.h>

void *plugin_make(size_t size);
void plugin_drop(void *block);

void *plugin_make(size_t size) { return malloc(size); }
void plugin_drop(void *block) { free(block); }
