/*
 * 32 pairs of the fast path in the caller (include/allokit/inline.h) between two marks, for count.c.
 * Usage: inline unsized|sized
 */
#include <alloc.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { PAIRS = 32 };

static void mark(void)
{
    syscall(SYS_kill, getpid(), SIGUSR1);
}

/* The compiler is to know no more of the block than that there is one. */
#define USE(block) __asm__ volatile("" : "+r"(block))

static __attribute__((noinline)) void unsized(long pairs)
{
    for (long i = 0; i < pairs; i++) {
        void *block = ak_alloc(64);
        USE(block);
        ak_free(block);
    }
}

static __attribute__((noinline)) void sized(long pairs)
{
    for (long i = 0; i < pairs; i++) {
        void *block = ak_alloc(64);
        USE(block);
        ak_free_sized(block, 64);
    }
}

int main(int argc, char **argv)
{
    void (*run)(long) = argc > 1 && argv[1][0] == 's' ? sized : unsized;
    run(100000); /* warm: the thread has its heap, the bin its blocks, and the looks from frees are as rare as in a busy one */
    mark();
    run(PAIRS);
    mark();
    return 0;
}
