/*
 * 07_server - an event server in miniature: one thread reads requests, workers answer them, one thread writes the answers.
 *
 *     client ==socketpair==> reader --queue--> workers --queue--> writer ==socketpair==> client
 *
 * A request's block is allocated by the reader and freed by a worker; an answer's block is allocated by a worker and
 * freed by the writer. Freeing on another thread is the hard case for an allocator, and the usual one in servers. With
 * Allokit nothing has to be said about it: any thread frees any block.
 *
 * At shutdown ak_assert_balanced says whether everything allocated since ak_mark was freed:
 *
 *     ALLOKIT_TRACK=sites ./07_server [requests]
 */
#include "alloc.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { WORKERS = 4, QUEUE_BOUND = 256, MAX_PAYLOAD = 2000 };

/* On the wire: a head, then `length` bytes. Requests and answers look the same. */
typedef struct head {
    uint32_t id;
    uint32_t length;
} head_t;

typedef struct message {
    struct message *next;
    head_t head;
    unsigned char payload[];
} message_t;

/* A bounded queue of messages. A full queue makes its producers wait: that is what bounds the server's memory. */
typedef struct queue {
    pthread_mutex_t lock;
    pthread_cond_t not_empty, not_full;
    message_t *first, **last;
    size_t count;
    bool closed;
} queue_t;

static _Noreturn void die(const char *what) {
    fprintf(stderr, "server: %s: %s\n", what, strerror(errno));
    exit(EXIT_FAILURE);
}

static void queue_init(queue_t *queue) {
    memset(queue, 0, sizeof *queue);
    pthread_mutex_init(&queue->lock, NULL);
    pthread_cond_init(&queue->not_empty, NULL);
    pthread_cond_init(&queue->not_full, NULL);
    queue->last = &queue->first;
}

static void queue_destroy(queue_t *queue) {
    pthread_cond_destroy(&queue->not_full);
    pthread_cond_destroy(&queue->not_empty);
    pthread_mutex_destroy(&queue->lock);
}

static void queue_push(queue_t *queue, message_t *message) {
    message->next = NULL;
    pthread_mutex_lock(&queue->lock);
    while (queue->count == QUEUE_BOUND) pthread_cond_wait(&queue->not_full, &queue->lock);
    *queue->last = message;
    queue->last = &message->next;
    queue->count++;
    pthread_cond_signal(&queue->not_empty);
    pthread_mutex_unlock(&queue->lock);
}

/* The oldest message, or NULL when the queue is closed and empty. */
static message_t *queue_pop(queue_t *queue) {
    pthread_mutex_lock(&queue->lock);
    while (queue->count == 0 && !queue->closed) pthread_cond_wait(&queue->not_empty, &queue->lock);
    message_t *message = queue->first;
    if (message != NULL) {
        queue->first = message->next;
        if (queue->first == NULL) queue->last = &queue->first;
        queue->count--;
        pthread_cond_signal(&queue->not_full);
    }
    pthread_mutex_unlock(&queue->lock);
    return message;
}

static void queue_close(queue_t *queue) {
    pthread_mutex_lock(&queue->lock);
    queue->closed = true;
    pthread_cond_broadcast(&queue->not_empty);
    pthread_mutex_unlock(&queue->lock);
}

/* ---- the wire ---- */

/* Reads exactly `length` bytes; false at the end of the stream. */
static bool read_all(int fd, void *to, size_t length) {
    unsigned char *at = to;
    while (length > 0) {
        ssize_t got = read(fd, at, length);
        if (got == 0) return false;
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) die("read");
        at += got;
        length -= (size_t)got;
    }
    return true;
}

static void write_all(int fd, const void *from, size_t length) {
    const unsigned char *at = from;
    while (length > 0) {
        ssize_t put = write(fd, at, length);
        if (put < 0 && errno == EINTR) continue;
        if (put < 0) die("write");
        at += put;
        length -= (size_t)put;
    }
}

static message_t *message_new(uint32_t id, uint32_t length) {
    message_t *message = ak_alloc(sizeof(message_t) + length);
    if (message == NULL) die("a message");
    message->head = (head_t){.id = id, .length = length};
    return message;
}

/* A whole message from the stream, in a block of its own; NULL at the end. */
static message_t *message_read(int fd) {
    head_t head;
    if (!read_all(fd, &head, sizeof head)) return NULL;
    if (head.length > MAX_PAYLOAD) {
        fprintf(stderr, "server: a message of %" PRIu32 " bytes; the most is %d\n", head.length, MAX_PAYLOAD);
        exit(EXIT_FAILURE);
    }
    message_t *message = message_new(head.id, head.length);
    if (!read_all(fd, message->payload, head.length)) die("half a message");
    return message;
}

/* ---- the server's threads ---- */

typedef struct server {
    int in, out;
    queue_t requests, answers;
} server_t;

static void *reader_main(void *arg) {
    server_t *server = arg;
    message_t *request;
    while ((request = message_read(server->in)) != NULL) queue_push(&server->requests, request);
    queue_close(&server->requests);
    return NULL;
}

/* The service: the bytes in reverse, twice. It uses some blocks of its own, as parsing a request does. */
static message_t *serve(const message_t *request) {
    uint32_t length = request->head.length;
    unsigned char *copy = ak_memdup(request->payload, length);
    char *label = ak_alloc(32);
    if (copy == NULL || label == NULL) die("a worker's buffers");
    snprintf(label, 32, "answer to %" PRIu32, request->head.id);

    uint32_t label_length = (uint32_t)strlen(label);
    message_t *answer = message_new(request->head.id, 2 * length + label_length);
    for (uint32_t i = 0; i < length; i++) {
        answer->payload[i] = copy[length - 1 - i];
        answer->payload[length + i] = copy[length - 1 - i];
    }
    memcpy(answer->payload + 2 * length, label, label_length);
    ak_free(label);
    ak_free_sized(copy, length);
    return answer;
}

static void *worker_main(void *arg) {
    server_t *server = arg;
    message_t *request;
    while ((request = queue_pop(&server->requests)) != NULL) {
        queue_push(&server->answers, serve(request));
        ak_free(request); /* allocated by the reader */
    }
    return NULL;
}

static void *writer_main(void *arg) {
    server_t *server = arg;
    message_t *answer;
    while ((answer = queue_pop(&server->answers)) != NULL) {
        write_all(server->out, &answer->head, sizeof answer->head);
        write_all(server->out, answer->payload, answer->head.length);
        ak_free(answer); /* allocated by a worker */
    }
    return NULL;
}

/* ---- the client: sends on one thread, checks the answers on another ---- */

typedef struct client {
    int out;
    uint32_t requests;
} client_t;

/* The length and the bytes of a request follow from its number: the client can check an answer that it did not keep. */
static uint32_t length_of(uint32_t id) { return id * 7919u % (MAX_PAYLOAD / 2); }
static unsigned char byte_of(uint32_t id, uint32_t at) { return (unsigned char)(id * 31u + at * 7u); }

static void *sender_main(void *arg) {
    const client_t *client = arg;
    unsigned char buffer[MAX_PAYLOAD];
    for (uint32_t id = 0; id < client->requests; id++) {
        head_t head = {.id = id, .length = length_of(id)};
        for (uint32_t i = 0; i < head.length; i++) buffer[i] = byte_of(id, i);
        write_all(client->out, &head, sizeof head);
        write_all(client->out, buffer, head.length);
    }
    shutdown(client->out, SHUT_WR); /* the reader sees the end, and the server winds down */
    return NULL;
}

static bool answer_is_right(const head_t *head, const unsigned char *payload) {
    char label[32];
    int label_length = snprintf(label, sizeof label, "answer to %" PRIu32, head->id);
    uint32_t length = length_of(head->id);
    if (head->length != 2 * length + (uint32_t)label_length) return false;
    for (uint32_t i = 0; i < length; i++) {
        unsigned char right = byte_of(head->id, length - 1 - i);
        if (payload[i] != right || payload[length + i] != right) return false;
    }
    return memcmp(payload + 2 * length, label, (size_t)label_length) == 0;
}

static pthread_t start(void *(*run)(void *), void *arg) {
    pthread_t thread;
    errno = pthread_create(&thread, NULL, run, arg);
    if (errno != 0) die("pthread_create");
    return thread;
}

int main(int argc, char **argv) {
    long requests = 20000;
    if (argc > 1) requests = strtol(argv[1], NULL, 10);
    if (requests < 1 || requests > 10000000) {
        fprintf(stderr, "usage: server [requests]   (1 to 10000000)\n");
        return 2;
    }

    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0) die("socketpair");

    ak_mark(); /* from here on, what is allocated must be freed before the shutdown */

    server_t *server = AK_NEW(server_t);
    if (server == NULL) die("the server");
    server->in = server->out = pair[1];
    queue_init(&server->requests);
    queue_init(&server->answers);

    pthread_t reader = start(reader_main, server);
    pthread_t writer = start(writer_main, server);
    pthread_t workers[WORKERS];
    for (int i = 0; i < WORKERS; i++) workers[i] = start(worker_main, server);

    client_t client = {.out = pair[0], .requests = (uint32_t)requests};
    pthread_t sender = start(sender_main, &client);

    /* The answers come in any order, each one exactly once. */
    bool *seen = AK_ARRAY(bool, (size_t)requests);
    if (seen == NULL) die("the list of answers");
    long answered = 0;
    uint64_t bytes = 0;
    while (answered < requests) {
        head_t head;
        unsigned char payload[2 * MAX_PAYLOAD + 32];
        if (!read_all(pair[0], &head, sizeof head)) break;
        if (head.length > sizeof payload || !read_all(pair[0], payload, head.length)) break;
        if (head.id >= (uint32_t)requests || seen[head.id] || !answer_is_right(&head, payload)) {
            fprintf(stderr, "server: a wrong answer to request %" PRIu32 "\n", head.id);
            return EXIT_FAILURE;
        }
        seen[head.id] = true;
        answered++;
        bytes += head.length;
    }
    ak_free(seen);

    /* Shutdown in the order of the stream: each stage ends when the one before it has closed its queue. */
    pthread_join(sender, NULL);
    pthread_join(reader, NULL);
    for (int i = 0; i < WORKERS; i++) pthread_join(workers[i], NULL);
    queue_close(&server->answers);
    pthread_join(writer, NULL);
    queue_destroy(&server->requests);
    queue_destroy(&server->answers);
    AK_FREE(server);
    close(pair[0]);
    close(pair[1]);

    printf("%ld requests answered by %d workers, %" PRIu64 " bytes, all right\n", answered, WORKERS, bytes);
    fflush(stdout);
    bool balanced = ak_assert_balanced("shutdown"); /* true, with a word on stderr, when tracking is off */
    if (ak_track_get() != AK_TRACK_OFF && balanced) printf("shutdown: nothing is live\n");
    return answered == requests && balanced ? EXIT_SUCCESS : EXIT_FAILURE;
}
