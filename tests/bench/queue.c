/*
 * Producers allocate, consumers free: batches of 128 blocks go through a bounded queue. Half of the threads produce.
 */
#include "bench.h"

enum { BATCH = 128, ROOM = 64, BATCHES = 150000 };

typedef struct batch {
    void *blocks[BATCH];
} batch_t;

typedef struct queue {
    pthread_mutex_t lock;
    pthread_cond_t filled, emptied;
    batch_t *batches[ROOM];
    unsigned head, count;
    int producers;
} queue_t;

static void produce(queue_t *queue, worker_t *worker)
{
    uint64_t batches = scaled(worker->bench, BATCHES);
    for (uint64_t i = 0; i < batches; i++) {
        batch_t *batch = must(malloc(sizeof *batch));
        for (int j = 0; j < BATCH; j++) batch->blocks[j] = stamped(16 + (size_t)next_random(&worker->seed) % 240);
        pthread_mutex_lock(&queue->lock);
        while (queue->count == ROOM) pthread_cond_wait(&queue->emptied, &queue->lock);
        queue->batches[(queue->head + queue->count++) % ROOM] = batch;
        pthread_cond_signal(&queue->filled);
        pthread_mutex_unlock(&queue->lock);
    }
    worker->ops = batches * BATCH;
    pthread_mutex_lock(&queue->lock);
    queue->producers--;
    pthread_cond_broadcast(&queue->filled);
    pthread_mutex_unlock(&queue->lock);
}

static void consume(queue_t *queue)
{
    for (;;) {
        pthread_mutex_lock(&queue->lock);
        while (queue->count == 0 && queue->producers > 0) pthread_cond_wait(&queue->filled, &queue->lock);
        if (queue->count == 0) {
            pthread_mutex_unlock(&queue->lock);
            return;
        }
        batch_t *batch = queue->batches[queue->head];
        queue->head = (queue->head + 1) % ROOM;
        queue->count--;
        pthread_cond_signal(&queue->emptied);
        pthread_mutex_unlock(&queue->lock);
        for (int j = 0; j < BATCH; j++) free_stamped(batch->blocks[j]);
        free(batch);
    }
}

static void *work(void *arg)
{
    worker_t *worker = arg;
    if (worker->index % 2 == 0) produce(worker->shared, worker);
    else consume(worker->shared);
    return NULL;
}

int main(int argc, char **argv)
{
    bench_t bench = bench_begin(argc, argv, 2, "");
    int threads = bench.threads < 2 ? 2 : bench.threads;
    static queue_t queue = {.lock = PTHREAD_MUTEX_INITIALIZER, .filled = PTHREAD_COND_INITIALIZER,
                            .emptied = PTHREAD_COND_INITIALIZER};
    queue.producers = (threads + 1) / 2;
    worker_t sum = run_workers(&bench, work, &queue, threads);
    return bench_end(&bench, sum.ops, sum.check);
}
