/*
 * 32 operations of an arena, a pool or a region between two marks, for count.c.
 * Usage: arena arena|pool|region
 */
#include <alloc.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { CALLS = 32 };

static void mark(void)
{
    syscall(SYS_kill, getpid(), SIGUSR1);
}

/* The compiler is to know no more of the block than that there is one. */
#define USE(block) __asm__ volatile("" : "+r"(block))

static __attribute__((noinline)) void arena(void *owner, long calls)
{
    for (long i = 0; i < calls; i++) {
        void *block = ak_arena_alloc((ak_arena_t *)owner, 64 + (size_t)(i & 1));
        USE(block);
    }
}

static __attribute__((noinline)) void pool(void *owner, long calls)
{
    for (long i = 0; i < calls; i++) {
        void *object = ak_pool_take((ak_pool_t *)owner);
        USE(object);
        ak_pool_give((ak_pool_t *)owner, object);
    }
}

static __attribute__((noinline)) void region(void *owner, long calls)
{
    for (long i = 0; i < calls; i++) {
        void *block = ak_region_alloc((ak_region_t *)owner, 64);
        USE(block);
        ak_region_free(block);
    }
}

int main(int argc, char **argv)
{
    const char *which = argc > 1 ? argv[1] : "arena";
    void (*run)(void *, long) = arena;
    void *owner;
    if (strcmp(which, "pool") == 0) {
        run = pool;
        owner = ak_pool_new(64, NULL);
    } else if (strcmp(which, "region") == 0) {
        run = region;
        owner = ak_region_new(1 << 20);
    } else {
        owner = ak_arena_new(NULL);
    }
    if (owner == NULL) return 1;
    run(owner, 100); /* the arena has chunks, the pool an object in its list, the region a block that waits */
    if (run == arena) ak_arena_reset((ak_arena_t *)owner);
    mark();
    run(owner, CALLS);
    mark();
    return 0;
}
