/*
 * 09_http - an HTTP server: worker threads with epoll, an arena for each request, a heap with a limit for each
 * tenant.
 *
 *     GET /hello?name=Ann          a page
 *     PUT /tenant/acme/key         keeps the body; 507 when the tenant is at its limit
 *     GET /tenant/acme/key         gives it back
 *
 * What a request needs (its parsed head, the page, the answer) lies in the arena of its connection, and ends with one
 * ak_arena_reset when the last byte of the answer is sent. Nothing is freed one by one, no path forgets to, and after a few
 * requests an arena takes no more memory. Connections come and go: they are objects of a pool, one for each worker.
 *
 *     ./09_http [--port P] [--requests N] [--workers W]
 *
 * Port 0 is any free one; the first line of output names it. After N answers the server ends, says how its memory went, and
 * fails if it grew: that is the test of it (./09_load drives it). Without --requests it runs for good.
 */
#include "tenant.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MOST_WORKERS = 64, IN_SIZE = 8192, ARENA_LIMIT = 1 << 20, EVENTS = 64 };
/* What the memory may grow by between a tenth of the requests and all of them. */
enum { MAY_GROW = 3 << 20 };

static _Noreturn void die(const char *what) {
    fprintf(stderr, "http: %s: %s\n", what, strerror(errno));
    exit(EXIT_FAILURE);
}

/* ---- how the memory goes ---- */

static long wanted; /* requests to answer; 0: for good */
static atomic_long answered;
static atomic_size_t resident_at[3]; /* after 10 %, 50 %, 100 % */
static int stop_event = -1;

static size_t resident_bytes(void) {
    char text[128] = "";
    int file = open("/proc/self/statm", O_RDONLY);
    ssize_t length = file < 0 ? 0 : read(file, text, sizeof text - 1);
    if (file >= 0) close(file);
    char *second = length > 0 ? strchr(text, ' ') : NULL;
    return second == NULL ? 0 : strtoul(second, NULL, 10) * (size_t)sysconf(_SC_PAGESIZE);
}

static void count_answer(void) {
    if (wanted == 0) return;
    long number = atomic_fetch_add(&answered, 1) + 1;
    if (number == wanted / 10) resident_at[0] = resident_bytes();
    if (number == wanted / 2) resident_at[1] = resident_bytes();
    if (number == wanted) {
        resident_at[2] = resident_bytes();
        uint64_t one = 1;
        if (write(stop_event, &one, sizeof one) != sizeof one) die("stop");
    }
}

/* ---- a connection ---- */

typedef struct connection {
    int socket;
    ak_arena_t *arena; /* of the request that is being answered */
    struct connection *next, **link;
    const char *out; /* what is still to be sent; it lies in the arena */
    size_t out_left;
    size_t in_used;
    bool last; /* closed when the answer is sent */
    char in[IN_SIZE];
} connection_t;

typedef struct worker {
    int epoll, listener;
    ak_pool_t *connections;
    connection_t *first;
} worker_t;

/* A request; its texts are in the arena, and zero-terminated. */
typedef struct request {
    const char *method, *path, *query, *body;
    size_t body_length, length; /* bytes of the body; bytes of all */
    bool keep_alive;
} request_t;

typedef struct answer {
    int status;
    const char *body;
    size_t length;
} answer_t;

static void close_connection(worker_t *worker, connection_t *c) {
    *c->link = c->next;
    if (c->next != NULL) c->next->link = c->link;
    close(c->socket);
    ak_arena_destroy(c->arena);
    ak_pool_give(worker->connections, c);
}

static void accept_all(worker_t *worker) {
    for (;;) {
        int socket = accept4(worker->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (socket < 0) return; /* EAGAIN: another worker has it */
        connection_t *c = ak_pool_take(worker->connections);
        ak_arena_opts_t options = {.struct_size = sizeof options, .name = "request", .limit = ARENA_LIMIT};
        ak_arena_t *arena = c != NULL ? ak_arena_new(&options) : NULL;
        if (arena == NULL) { /* no memory: this client has to come again */
            ak_pool_give(worker->connections, c);
            close(socket);
            continue;
        }
        int yes = 1;
        setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
        c->socket = socket;
        c->arena = arena;
        c->out = NULL;
        c->out_left = c->in_used = 0;
        c->last = false;
        c->next = worker->first;
        c->link = &worker->first;
        if (c->next != NULL) c->next->link = &c->next;
        worker->first = c;
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
        if (epoll_ctl(worker->epoll, EPOLL_CTL_ADD, socket, &event) != 0) close_connection(worker, c);
    }
}

/* ---- reading a request ---- */

static bool is_same_name(const char *at, size_t length, const char *name) {
    for (size_t i = 0; i < length; i++)
        if (tolower((unsigned char)at[i]) != name[i]) return false;
    return name[length] == 0;
}

/* 1: a whole request; 0: not all of it is there yet; -1: none that this server understands, or no memory for it. */
static int parse_request(ak_arena_t *arena, const char *in, size_t used, request_t *request) {
    const char *end = NULL;
    for (size_t i = 3; i < used && end == NULL; i++)
        if (memcmp(in + i - 3, "\r\n\r\n", 4) == 0) end = in + i + 1;
    if (end == NULL) return used == IN_SIZE ? -1 : 0;

    const char *line_end = memchr(in, '\r', used);
    const char *space = memchr(in, ' ', (size_t)(line_end - in));
    const char *after = space != NULL ? memchr(space + 1, ' ', (size_t)(line_end - space - 1)) : NULL;
    if (after == NULL) return -1;
    bool is_1_1 = line_end - after == 9 && memcmp(after, " HTTP/1.1", 9) == 0;
    request->keep_alive = is_1_1;

    size_t body_length = 0;
    for (const char *line = line_end + 2; line < end - 2;) {
        const char *stop = memchr(line, '\r', (size_t)(end - line));
        const char *colon = memchr(line, ':', (size_t)(stop - line));
        if (colon == NULL) return -1;
        const char *value = colon + 1;
        while (value < stop && *value == ' ') value++;
        if (is_same_name(line, (size_t)(colon - line), "content-length")) {
            if (value == stop) return -1;
            for (; value < stop; value++) {
                if (!isdigit((unsigned char)*value) || body_length > IN_SIZE) return -1;
                body_length = body_length * 10 + (size_t)(*value - '0');
            }
        } else if (is_same_name(line, (size_t)(colon - line), "connection")) {
            request->keep_alive = is_1_1 && !is_same_name(value, (size_t)(stop - value), "close");
        }
        line = stop + 2;
    }
    size_t head = (size_t)(end - in);
    if (body_length > IN_SIZE - head) return -1;
    if (body_length > used - head) return 0;

    char *target = ak_arena_strndup(arena, space + 1, (size_t)(after - space - 1));
    request->method = ak_arena_strndup(arena, in, (size_t)(space - in));
    request->body = ak_arena_strndup(arena, end, body_length);
    if (target == NULL || request->method == NULL || request->body == NULL) return -1;
    char *question = strchr(target, '?');
    if (question != NULL) *question++ = 0;
    request->path = target;
    request->query = question != NULL ? question : "";
    request->body_length = body_length;
    request->length = head + body_length;
    return 1;
}

/* The value of a parameter, with %41 and + made plain; NULL when it is not there. */
static const char *parameter(ak_arena_t *arena, const char *query, const char *name) {
    size_t length = strlen(name);
    while (strncmp(query, name, length) != 0 || query[length] != '=') {
        query = strchr(query, '&');
        if (query == NULL) return NULL;
        query++;
    }
    query += length + 1;
    char *value = ak_arena_strndup(arena, query, strcspn(query, "&")), *to = value;
    if (value == NULL) return NULL;
    for (const char *at = value; *at != 0; at++) {
        if (*at == '%' && isxdigit((unsigned char)at[1]) && isxdigit((unsigned char)at[2])) {
            char digits[3] = {at[1], at[2], 0};
            *to++ = (char)strtol(digits, NULL, 16);
            at += 2;
        } else {
            *to++ = *at == '+' ? ' ' : *at;
        }
    }
    *to = 0;
    return value;
}

/* The text as HTML: the temporary is in a scratch arena, the result in the request's. */
static const char *escaped(ak_arena_t *arena, const char *text) {
    ak_scratch_t scratch = ak_scratch_begin();
    char *html = scratch.arena != NULL ? ak_arena_alloc(scratch.arena, 6 * strlen(text) + 1) : NULL, *to = html;
    for (; html != NULL && *text != 0; text++) {
        switch (*text) {
        case '<': to = stpcpy(to, "&lt;"); break;
        case '>': to = stpcpy(to, "&gt;"); break;
        case '&': to = stpcpy(to, "&amp;"); break;
        case '"': to = stpcpy(to, "&quot;"); break;
        default: *to++ = *text;
        }
    }
    const char *copy = html != NULL ? ak_arena_strndup(arena, html, (size_t)(to - html)) : NULL;
    ak_scratch_end(scratch);
    return copy;
}

/* ---- answering it ---- */

static answer_t text_answer(int status, const char *text) {
    return (answer_t){status, text, text != NULL ? strlen(text) : 0};
}

static answer_t hello(ak_arena_t *arena, const request_t *request) {
    const char *name = parameter(arena, request->query, "name");
    const char *html = escaped(arena, name != NULL ? name : "world");
    return text_answer(200, html != NULL ? ak_arena_sprintf(arena, "<html><body><p>Hello, %s!</p></body></html>\n", html) : NULL);
}

static answer_t tenant(ak_arena_t *arena, const request_t *request) {
    const char *name = request->path + strlen("/tenant/"), *slash = strchr(name, '/');
    if (slash == NULL || slash[1] == 0) return text_answer(404, "no key\n");
    tenant_t *tenant = tenant_find(name, (size_t)(slash - name));
    if (tenant == NULL) return text_answer(404, "no such tenant\n");
    if (strcmp(request->method, "PUT") == 0) {
        bool kept = tenant_put(tenant, slash + 1, request->body, request->body_length);
        return kept ? text_answer(200, "kept\n") : text_answer(507, "the tenant is at its limit\n");
    }
    answer_t answer = {200, NULL, 0};
    answer.body = tenant_get(tenant, arena, slash + 1, &answer.length);
    return answer.body != NULL ? answer : text_answer(404, "no such key\n");
}

static answer_t answer_to(ak_arena_t *arena, const request_t *request) {
    if (strcmp(request->path, "/hello") == 0) return hello(arena, request);
    if (strncmp(request->path, "/tenant/", 8) == 0) return tenant(arena, request);
    return text_answer(404, "nothing here\n");
}

/* Head and body in one block of the arena, which stays until it is sent. */
static void begin_answer(connection_t *c, answer_t answer) {
    if (answer.body == NULL) answer = text_answer(503, "out of memory\n"); /* the request's own: others go on */
    const char *head = ak_arena_sprintf(c->arena, "HTTP/1.1 %d %s\r\nContent-Length: %zu\r\n%s\r\n", answer.status,
                                        answer.status == 200 ? "OK" : "Error", answer.length, c->last ? "Connection: close\r\n" : "");
    size_t head_length = head != NULL ? strlen(head) : 0;
    char *all = head != NULL ? ak_arena_alloc(c->arena, head_length + answer.length) : NULL;
    if (all == NULL) {
        c->last = true;
        c->out = "HTTP/1.1 503 Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        c->out_left = strlen(c->out);
        return;
    }
    memcpy(all, head, head_length);
    memcpy(all + head_length, answer.body, answer.length);
    c->out = all;
    c->out_left = head_length + answer.length;
}

/* Sends what the socket takes. False: the connection is over. */
static bool send_answer(worker_t *worker, connection_t *c) {
    while (c->out_left > 0) {
        ssize_t sent = send(c->socket, c->out, c->out_left, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR) continue;
        if (sent < 0 && errno == EAGAIN) {
            struct epoll_event event = {.events = EPOLLOUT, .data.ptr = c};
            return epoll_ctl(worker->epoll, EPOLL_CTL_MOD, c->socket, &event) == 0;
        }
        if (sent < 0) return false;
        c->out += sent;
        c->out_left -= (size_t)sent;
    }
    c->out = NULL;
    ak_arena_reset(c->arena); /* the end of the request: all that it needed */
    count_answer();
    return !c->last;
}

/* Answers the requests that are in the buffer, until one is not whole or the client does not take its answer. */
static bool serve(worker_t *worker, connection_t *c) {
    while (c->out == NULL) {
        request_t request = {0};
        int whole = parse_request(c->arena, c->in, c->in_used, &request);
        if (whole == 0) return true;
        if (whole < 0) {
            c->last = true;
            begin_answer(c, text_answer(400, "this is no request\n"));
        } else {
            c->last = !request.keep_alive;
            begin_answer(c, answer_to(c->arena, &request));
            c->in_used -= request.length;
            memmove(c->in, c->in + request.length, c->in_used);
        }
        if (!send_answer(worker, c)) return false;
    }
    return true;
}

static bool handle(worker_t *worker, connection_t *c, uint32_t events) {
    if (events & (EPOLLERR | EPOLLHUP)) return false;
    if (events & EPOLLOUT) {
        if (!send_answer(worker, c)) return false;
        if (c->out != NULL) return true;
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
        if (epoll_ctl(worker->epoll, EPOLL_CTL_MOD, c->socket, &event) != 0) return false;
    } else {
        ssize_t got = recv(c->socket, c->in + c->in_used, IN_SIZE - c->in_used, 0);
        if (got == 0) return false;
        if (got < 0) return errno == EAGAIN || errno == EINTR;
        c->in_used += (size_t)got;
    }
    return serve(worker, c);
}

static void *work(void *arg) {
    worker_t *worker = arg;
    struct epoll_event events[EVENTS];
    for (bool over = false; !over;) {
        int count = epoll_wait(worker->epoll, events, EVENTS, -1);
        if (count < 0 && errno != EINTR) die("epoll_wait");
        for (int i = 0; i < count; i++) {
            void *what = events[i].data.ptr;
            if (what == &stop_event) {
                over = true;
            } else if (what == worker) {
                accept_all(worker);
            } else if (!handle(worker, what, events[i].events)) {
                close_connection(worker, what);
            }
        }
    }
    while (worker->first != NULL) close_connection(worker, worker->first);
    return NULL;
}

/* ---- beginning and end ---- */

static int listen_on(long port) {
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), yes = 1;
    if (listener < 0) die("socket");
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    if (bind(listener, (struct sockaddr *)&address, length) != 0 || listen(listener, 128) != 0) die("listen");
    if (getsockname(listener, (struct sockaddr *)&address, &length) != 0) die("getsockname");
    printf("listening on port %d\n", ntohs(address.sin_port));
    fflush(stdout);
    return listener;
}

static void watch(int epoll, int file, uint32_t events, void *what) {
    struct epoll_event event = {.events = events, .data.ptr = what};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, file, &event) != 0) die("epoll_ctl");
}

static bool stayed_flat(void) {
    size_t first = resident_at[0], middle = resident_at[1], last = resident_at[2];
    printf("%ld requests answered; resident after 10 %%, 50 %%, 100 %%: %zu, %zu, %zu KiB\n", (long)answered, first / 1024,
           middle / 1024, last / 1024);
    if (first == 0 || last <= first + MAY_GROW) return true;
    fprintf(stderr, "http: the memory grew by %zu KiB\n", (last - first) / 1024);
    return false;
}

int main(int argc, char **argv) {
    long port = 8080, workers = 2;
    for (int i = 1; i < argc; i += 2) {
        long *option = strcmp(argv[i], "--port") == 0       ? &port
                       : strcmp(argv[i], "--requests") == 0 ? &wanted
                       : strcmp(argv[i], "--workers") == 0  ? &workers
                                                            : NULL;
        if (option != NULL && i + 1 < argc) *option = strtol(argv[i + 1], NULL, 10);
        if (option == NULL || i + 1 == argc || port < 0 || port > 65535 || wanted < 0 || workers < 1 || workers > MOST_WORKERS) {
            fprintf(stderr, "usage: http [--port P] [--requests N] [--workers W]\n");
            return 2;
        }
    }
    if (wanted > 0 && wanted < 10) wanted = 10;

    ak_mark();
    int listener = listen_on(port);
    stop_event = eventfd(0, EFD_CLOEXEC);
    if (stop_event < 0) die("eventfd");
    worker_t all[MOST_WORKERS];
    pthread_t threads[MOST_WORKERS];
    for (long i = 0; i < workers; i++) {
        ak_pool_opts_t options = {.struct_size = sizeof options, .name = "connections", .limit = 10000};
        all[i] = (worker_t){.epoll = epoll_create1(EPOLL_CLOEXEC), .listener = listener, .connections = ak_pool_new(sizeof(connection_t), &options)};
        if (all[i].epoll < 0 || all[i].connections == NULL) die("a worker");
        watch(all[i].epoll, listener, EPOLLIN | EPOLLEXCLUSIVE, &all[i]);
        watch(all[i].epoll, stop_event, EPOLLIN, &stop_event); /* nobody reads it: it wakes them all */
        errno = pthread_create(&threads[i], NULL, work, &all[i]);
        if (errno != 0) die("pthread_create");
    }
    for (long i = 0; i < workers; i++) {
        pthread_join(threads[i], NULL);
        close(all[i].epoll);
        ak_pool_destroy(all[i].connections);
    }
    close(listener);
    close(stop_event);
    tenants_destroy();
    bool flat = stayed_flat(), balanced = ak_track_get() == AK_TRACK_OFF || ak_assert_balanced("the server's end");
    return flat && balanced ? EXIT_SUCCESS : EXIT_FAILURE;
}
