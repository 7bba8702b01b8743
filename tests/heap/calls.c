/*
 * 32 calls of a heap between two marks, for tests/instr/count.c: what an allocation and a free cost, loop included.
 * Usage: calls alloc|free|general [limit]; general: ak_free.
 */
#define _GNU_SOURCE
#include <alloc.h>

#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { CALLS = 32, WARM = 64 };

static void mark(void) { syscall(SYS_kill, getpid(), SIGUSR1); }

int main(int argc, char **argv) {
    static void *blocks[WARM];
    char which = argc > 1 ? argv[1][0] : 'a';
    ak_heap_opts_t opts;
    memset(&opts, 0, sizeof opts);
    opts.struct_size = sizeof opts;
    opts.limit = argc > 2 ? 1 << 20 : 0;
    ak_heap_t *heap = ak_heap_new(&opts);
    for (int round = 0; round < 100; round++) {
        for (int i = 0; i < WARM; i++) blocks[i] = ak_heap_alloc(heap, 64);
        for (int i = 0; i < WARM; i++) ak_heap_free(heap, blocks[i]);
    }
    for (int i = 0; i < WARM; i++) blocks[i] = ak_heap_alloc(heap, 64);
    for (int i = WARM / 2; which == 'a' && i < WARM; i++) ak_heap_free(heap, blocks[i]);
    mark();
    if (which == 'a') {
        for (int i = 0; i < CALLS; i++) blocks[i] = ak_heap_alloc(heap, 64);
    } else if (which == 'f') {
        for (int i = 0; i < CALLS; i++) ak_heap_free(heap, blocks[i]);
    } else {
        for (int i = 0; i < CALLS; i++) ak_free(blocks[i]);
    }
    mark();
    return ak_heap_owns(heap, blocks[0]) ? 0 : 1;
}
