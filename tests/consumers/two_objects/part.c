/*
 * part.c - half of a program: a shared object that uses the library. Compiled with -DPART=a and -DPART=b.
 */
#include <alloc.h>

#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)
#define NAME(name) JOIN(PART, name)

void *NAME(alloc)(size_t size);
void NAME(free)(void *ptr);
uint64_t NAME(live)(void);
const char *NAME(backend)(void);

void *NAME(alloc)(size_t size) { return ak_alloc(size); }
void NAME(free)(void *ptr) { ak_free(ptr); }
const char *NAME(backend)(void) { return ak_backend_name(); }

/* Live bytes, as this object's calls see them. */
uint64_t NAME(live)(void) {
    ak_stats_t stats = {0};
    stats.struct_size = sizeof stats;
    return ak_stats_get(&stats) && (stats.known & AK_KNOWN_CURRENT_BYTES) ? stats.current_bytes : (uint64_t)-1;
}
