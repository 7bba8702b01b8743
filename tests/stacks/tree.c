/*
 * A tree of calls that is known to the byte, and what the library tells of it. Compiled with frame pointers; each leaf
 * allocates through `make`, so that a call site alone does not tell who it was for.
 * Usage: tree FOLDER: writes live.json, live.pb, live.folded, live.html and leaks (on stderr).
 *        tree sample FOLDER COUNT: 16 to 1015 bytes, COUNT blocks from one call and a quarter as many, twice as large, from
 *        another.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "alloc.h"

#define KEPT __attribute__((noinline))

static void *kept[1 << 20];
static size_t count;

/* Not static: their names are in the program's dynamic symbols, so that the library knows them. */
void make(size_t size);
void first(int times);
void second(int times);
void deep(int levels);
void resized(void);
void small(size_t blocks);
void large(size_t blocks);

KEPT void make(size_t size)
{
    kept[count++] = ak_alloc(size);
    __asm__ volatile("" ::: "memory"); /* no call is the last thing a function does */
}

KEPT void first(int times)
{
    for (int i = 0; i < times; i++) make(100);
    __asm__ volatile("" ::: "memory");
}

KEPT void second(int times)
{
    for (int i = 0; i < times; i++) make(1000);
    __asm__ volatile("" ::: "memory");
}

KEPT void deep(int levels)
{
    if (levels == 0) {
        make(7);
    } else {
        deep(levels - 1);
    }
    __asm__ volatile("" ::: "memory");
}

KEPT void resized(void)
{
    void *block = ak_alloc(10);
    block = ak_realloc(block, 3000);
    kept[count++] = block;
    __asm__ volatile("" ::: "memory");
}

KEPT void small(size_t blocks)
{
    for (size_t i = 0; i < blocks; i++) make(16 + i % 1000);
    __asm__ volatile("" ::: "memory");
}

KEPT void large(size_t blocks)
{
    for (size_t i = 0; i < blocks; i++) make(2 * (16 + i % 1000));
    __asm__ volatile("" ::: "memory");
}

static void write_profile(ak_profile_t format, const char *folder, const char *name)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    if (!ak_profile_write(format, path)) {
        perror(path);
        exit(1);
    }
}

static void write_all(const char *folder)
{
    write_profile(AK_PROFILE_JSON, folder, "live.json");
    write_profile(AK_PPROF, folder, "live.pb");
    write_profile(AK_FOLDED, folder, "live.folded");
    write_profile(AK_HTML, folder, "live.html");
}

int main(int argc, char **argv)
{
    if (argc > 3 && strcmp(argv[1], "sample") == 0) {
        size_t blocks = (size_t)strtoul(argv[3], NULL, 10);
        small(blocks);
        large(blocks / 4);
        write_all(argv[2]);
        return 0;
    }
    if (argc < 2) return 2;
    first(3);
    second(5);
    deep(4);
    deep(60);
    resized();
    first(2); /* another call of the same function: another stack */
    for (size_t i = 0; i < 2; i++) ak_free(kept[i]);
    ak_leaks_print();
    write_all(argv[1]);
    return ak_track_get() == AK_TRACK_STACKS ? 0 : 1;
}
