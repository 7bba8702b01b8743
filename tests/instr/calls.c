/*
 * 32 calls of an allocator between two marks, for count.c. Compiled once over Allokit (-DALLOC=ak_alloc -DFREE=ak_free)
 * and once over the backend's own functions; the difference of the two counts, by 32, is what Allokit adds to a call.
 * Usage: calls alloc|free
 */
#include <signal.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <unistd.h>

void *ALLOC(size_t size);
void FREE(void *ptr);

enum { CALLS = 32, WARM = 64 };

static void mark(void)
{
    syscall(SYS_kill, getpid(), SIGUSR1);
}

int main(int argc, char **argv)
{
    static void *blocks[WARM];
    int frees = argc > 1 && argv[1][0] == 'f';
    /* Warm: the thread has its heap and looks up from its frees as seldom as a busy one does, the class its blocks, the
     * lazily bound functions their addresses. */
    for (int round = 0; round < 1000; round++) {
        for (int i = 0; i < WARM; i++) blocks[i] = ALLOC(64);
        for (int i = 0; i < WARM; i++) FREE(blocks[i]);
    }
    for (int i = 0; i < WARM / 2; i++) blocks[i] = ALLOC(64);
    if (!frees) {
        mark();
        for (int i = 0; i < CALLS; i++) blocks[i] = ALLOC(64);
        mark();
    } else {
        mark();
        for (int i = 0; i < CALLS; i++) FREE(blocks[i]);
        mark();
    }
    return 0;
}
