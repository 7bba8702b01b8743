/*
 * A thread that only frees: one allocates without end, hands every block over through a ring, and the other one never
 * allocates. An allocator that keeps freed blocks with the thread that freed them grows without bound here.
 */
#include "bench.h"

#include <sched.h>
#include <stdatomic.h>

enum { ROOM = 4096, BLOCKS = 14000000 };

typedef struct ring {
    _Alignas(64) atomic_size_t head;
    _Alignas(64) atomic_size_t tail;
    _Alignas(64) void *blocks[ROOM];
    uint64_t total;
} ring_t;

static void *freer(void *arg)
{
    ring_t *ring = arg;
    for (uint64_t freed = 0; freed < ring->total;) {
        size_t tail = atomic_load_explicit(&ring->tail, memory_order_relaxed);
        size_t head = atomic_load_explicit(&ring->head, memory_order_acquire);
        if (head == tail) {
            sched_yield();
            continue;
        }
        for (size_t at = tail; at < head; at++, freed++) free_stamped(ring->blocks[at % ROOM]);
        atomic_store_explicit(&ring->tail, head, memory_order_release);
    }
    return NULL;
}

static void *work(void *arg)
{
    worker_t *worker = arg;
    ring_t *ring = must(aligned_alloc(64, sizeof *ring));
    memset(ring, 0, sizeof *ring);
    ring->total = scaled(worker->bench, BLOCKS);
    pthread_t other;
    if (pthread_create(&other, NULL, freer, ring) != 0) die("no thread");
    size_t head = 0, tail = 0;
    for (uint64_t i = 0; i < ring->total; i++) {
        while (head - tail >= ROOM) {
            tail = atomic_load_explicit(&ring->tail, memory_order_acquire);
            if (head - tail >= ROOM) sched_yield();
        }
        size_t size = some_size(&worker->seed, 12);
        ring->blocks[head % ROOM] = stamped(size);
        worker->check += size;
        /* Published in groups, as a server would. */
        if (++head % 32 == 0) atomic_store_explicit(&ring->head, head, memory_order_release);
    }
    atomic_store_explicit(&ring->head, head, memory_order_release);
    pthread_join(other, NULL);
    worker->ops = ring->total;
    free(ring);
    return NULL;
}

int main(int argc, char **argv)
{
    bench_t bench = bench_begin(argc, argv, 2, "");
    worker_t sum = run_workers(&bench, work, NULL, (bench.threads + 1) / 2);
    return bench_end(&bench, sum.ops, sum.check);
}
