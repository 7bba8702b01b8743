/*
 * Stacks where there is none to be had, or a wrong one: nothing may end the program, and each block is counted. Compiled
 * without frame pointers, and run with each way to find callers.
 * Usage: odd registers|threads|signals|coroutines|many|switching, odd unload PLUGIN FILE
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include "alloc.h"

#define KEPT __attribute__((noinline))

static int wrong(const char *what)
{
    fprintf(stderr, "wrong: %s\n", what);
    return 1;
}

static bool add(const ak_site_info_t *site, void *sums)
{
    ((uint64_t *)sums)[0] += site->live_blocks;
    ((uint64_t *)sums)[1] += site->live_bytes;
    return true;
}

/* Whether so much is live as the statistics count. */
static int is_counted(void)
{
    uint64_t sums[2] = {0, 0};
    ak_stats_t stats = {.struct_size = sizeof stats};
    if (ak_track_sample_get() != 0) return 0; /* estimates */
    ak_stats_get(&stats);
    ak_site_visit(add, sums);
    if (sums[1] == stats.current_bytes && sums[0] == stats.alloc_count - stats.free_count) return 0;
    fprintf(stderr, "%llu blocks, %llu bytes\n", (unsigned long long)sums[0], (unsigned long long)sums[1]);
    return wrong("live blocks are not those that are counted");
}

/* ---- a frame pointer that is none */

#if defined(__x86_64__)
/* ak_alloc(24) with this in rbp. */
static void *with_register(uintptr_t value)
{
    void *block;
    __asm__ volatile(
        "sub $128, %%rsp\n\t" /* what the compiler keeps below the stack pointer */
        "push %%rbp\n\t"
        "mov %%rsp, %%rbx\n\t"
        "and $-16, %%rsp\n\t"
        "mov %1, %%rbp\n\t"
        "mov $24, %%edi\n\t"
        "call *%2\n\t"
        "mov %%rbx, %%rsp\n\t"
        "pop %%rbp\n\t"
        "add $128, %%rsp\n\t"
        : "=a"(block)
        : "r"(value), "r"(ak_alloc)
        : "rbx", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "xmm0", "xmm1", "memory", "cc");
    return block;
}
#elif defined(__aarch64__)
static void *with_register(uintptr_t value)
{
    register uintptr_t size __asm__("x0") = 24;
    __asm__ volatile(
        "str x29, [sp, #-16]!\n\t"
        "mov x29, %1\n\t"
        "blr %2\n\t"
        "ldr x29, [sp], #16\n\t"
        : "+r"(size)
        : "r"(value), "r"(ak_alloc)
        : "x1", "x2", "x3", "x4", "x5", "x6", "x7", "x8", "x9", "x10", "x11", "x12", "x13", "x14", "x15", "x16", "x17",
          "x18", "x30", "d0", "d1", "memory", "cc");
    return (void *)size;
}
#endif

static int registers(void)
{
    uintptr_t words[64] __attribute__((aligned(64)));
    pthread_attr_t about;
    void *low;
    size_t size;
    pthread_getattr_np(pthread_self(), &about);
    pthread_attr_getstack(&about, &low, &size);
    pthread_attr_destroy(&about);
    uintptr_t here = (uintptr_t)words, end = (uintptr_t)low + size;
    char *gone = mmap(NULL, 1 << 16, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uintptr_t values[] = {0, 1, 8, 16, here, here + 1, here + 8, here + 16, here - 4096, end, end - 8, end - 16, end - 32,
                          (uintptr_t)gone, (uintptr_t)gone + 4096, (uintptr_t)low, (uintptr_t)low - 16,
                          UINTPTR_MAX, UINTPTR_MAX - 15, (uintptr_t)1 << 63, ((uintptr_t)1 << 47) - 16,
                          (uintptr_t)registers, (uintptr_t)malloc};
    size_t count = sizeof values / sizeof *values;
    /* What lies there is tried too: each value as the next frame, and as where the call returns to. */
    for (size_t next = 0; next < count; next++) {
        for (size_t i = 0; i < 64; i += 2) {
            words[i] = i < 32 ? (uintptr_t)&words[i + 2 + next % 4 * 2] : values[next];
            words[i + 1] = i % 4 == 0 ? values[(next + i) % count] : (uintptr_t)registers + i;
        }
        for (size_t i = 0; i < count; i++) {
            if (with_register(values[i]) == NULL) return wrong("a block");
        }
    }
    munmap(gone, 1 << 16);
    return is_counted();
}

/* ---- stacks of other kinds */

KEPT static void *some(int depth)
{
    void *block = depth > 0 ? some(depth - 1) : ak_alloc(40);
    if (depth == 0) ak_free(ak_alloc(50));
    __asm__ volatile("" ::: "memory");
    return block;
}

static void *in_thread(void *arg)
{
    (void)arg;
    for (int i = 0; i < 200; i++) {
        ak_free(some(i % 20));
        ak_free(ak_alloc((size_t)i));
    }
    return ak_alloc(11);
}

static int threads(void)
{
    pthread_attr_t little;
    pthread_attr_init(&little);
    pthread_attr_setstacksize(&little, 64 << 10);
    for (int round = 0; round < 20; round++) {
        pthread_t all[8];
        for (int i = 0; i < 8; i++) pthread_create(&all[i], i % 2 ? &little : NULL, in_thread, NULL);
        for (int i = 0; i < 8; i++) pthread_join(all[i], NULL);
    }
    return is_counted();
}

static void on_signal(int number)
{
    (void)number;
    /* The signal comes from `raise`, so that this is allowed. */
    ak_free(some(3));
    if (ak_alloc(12) == NULL) _exit(9);
}

static int signals(void)
{
    static char room[64 << 10];
    stack_t other = {.ss_sp = room, .ss_size = sizeof room};
    struct sigaction action = {.sa_handler = on_signal};
    sigaltstack(&other, NULL);
    for (int on_other = 0; on_other < 2; on_other++) {
        action.sa_flags = on_other ? SA_ONSTACK : 0;
        sigaction(SIGUSR1, &action, NULL);
        for (int i = 0; i < 10; i++) raise(SIGUSR1);
    }
    return is_counted();
}

static ucontext_t back, there;

static void in_coroutine(void)
{
    for (int i = 0; i < 10; i++) {
        ak_free(some(i));
        if (ak_alloc(13) == NULL) _exit(9);
        swapcontext(&there, &back);
    }
}

static int coroutines(void)
{
    for (volatile int round = 0; round < 3; round++) {
        size_t size = 64 << 10;
        char *stack = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        getcontext(&there);
        there.uc_stack.ss_sp = stack;
        there.uc_stack.ss_size = size;
        there.uc_link = &back;
        makecontext(&there, in_coroutine, 0);
        for (int i = 0; i < 11; i++) swapcontext(&back, &there);
        munmap(stack, size);
    }
    return is_counted();
}

/* ---- more stacks than there is room for */

KEPT static void fork_in_the_road(int depth)
{
    if (depth == 0) {
        if (ak_alloc(1) == NULL) exit(9);
    } else {
        fork_in_the_road(depth - 1);
        __asm__ volatile("" ::: "memory");
        fork_in_the_road(depth - 1);
    }
    __asm__ volatile("" ::: "memory");
}

static int many(void)
{
    fork_in_the_road(20);
    ak_snapshot_t *snapshot = ak_snapshot_take();
    ak_snapshot_free(snapshot);
    return snapshot == NULL ? wrong("a snapshot") : is_counted();
}

/* ---- switched while threads run */

static int going = 1;

static void *busy(void *arg)
{
    void *blocks[64] = {NULL};
    (void)arg;
    for (unsigned i = 0; __atomic_load_n(&going, __ATOMIC_RELAXED); i++) {
        ak_free(blocks[i % 64]);
        blocks[i % 64] = ak_realloc(ak_alloc(i % 900), 1000);
    }
    for (int i = 0; i < 64; i++) ak_free(blocks[i]);
    return NULL;
}

static int switching(void)
{
    static const ak_track_t levels[] = {AK_TRACK_STACKS, AK_TRACK_SITES, AK_TRACK_STACKS, AK_TRACK_OFF};
    pthread_t all[2];
    int native = strcmp(ak_backend_name(), "native") == 0;
    for (int i = 0; i < 2; i++) pthread_create(&all[i], NULL, busy, NULL);
    for (int round = 0; round < 40; round++) {
        ak_track_t level = levels[round % 4];
        ak_track_sample_set(round % 3 == 0 ? 4096 : 0);
        if (ak_track_set(level) != (native || level != AK_TRACK_OFF)) return wrong("switching");
        usleep(500);
    }
    ak_track_sample_set(0);
    if (!ak_track_set(AK_TRACK_STACKS) || ak_track_sample_get() != 0) return wrong("the last level");
    void *block = some(5);
    __atomic_store_n(&going, 0, __ATOMIC_RELAXED);
    for (int i = 0; i < 2; i++) pthread_join(all[i], NULL);
    ak_free(block);
    return 0;
}

/* ---- a module that goes */

static int unload(const char *plugin, const char *file)
{
    for (int round = 0; round < 3; round++) {
        void *module = dlopen(plugin, RTLD_NOW);
        if (module == NULL) return wrong(dlerror());
        void (*call)(void *(*)(void *));
        *(void **)&call = dlsym(module, "call");
        if (call == NULL) return wrong("the plugin");
        call(in_thread);
        dlclose(module);
    }
    ak_leaks_print();
    return ak_profile_write(AK_PPROF, file) && ak_profile_write(AK_PROFILE_JSON, "/dev/null") ? is_counted() : 1;
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";
    /* Before anything else is counted: what libc holds is not ours. */
    if (ak_track_get() == AK_TRACK_OFF && strcmp(what, "switching") != 0) return wrong("tracking is off");
    if (strcmp(what, "registers") == 0) return registers();
    if (strcmp(what, "threads") == 0) return threads();
    if (strcmp(what, "signals") == 0) return signals();
    if (strcmp(what, "coroutines") == 0) return coroutines();
    if (strcmp(what, "many") == 0) return many();
    if (strcmp(what, "switching") == 0) return switching();
    if (strcmp(what, "unload") == 0 && argc > 3) return unload(argv[2], argv[3]);
    return wrong("no such case");
}
