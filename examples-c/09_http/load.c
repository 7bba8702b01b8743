/*
 * 09_load - drives 09_http: several connections that stay open, each answer compared with what it must be.
 *
 *     ./09_load PORT [REQUESTS [CONNECTIONS]]
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MOST_CONNECTIONS = 64, ROOM = 16384, PER_CONNECTION = 5000, OVER_LIMIT = 97 };

static struct sockaddr_in server;
static atomic_long left;
static atomic_long refused; /* puts that a tenant's limit ended: they must come, and only there */

static _Noreturn void die(const char *what) {
    fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
    exit(EXIT_FAILURE);
}

static int open_connection(void) {
    int file = socket(AF_INET, SOCK_STREAM, 0), yes = 1;
    if (file < 0 || connect(file, (struct sockaddr *)&server, sizeof server) != 0) die("connect");
    setsockopt(file, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    return file;
}

static void send_all(int file, const char *from, size_t length) {
    while (length > 0) {
        ssize_t sent = send(file, from, length, MSG_NOSIGNAL);
        if (sent < 0) die("send");
        from += sent;
        length -= (size_t)sent;
    }
}

/* One answer; its status, and its body in `body`. */
static int receive(int file, char *in, const char **body, size_t *length) {
    size_t used = 0;
    for (;;) {
        ssize_t got = recv(file, in + used, ROOM - 1 - used, 0);
        if (got <= 0) die("the server hung up");
        used += (size_t)got;
        in[used] = 0;
        char *end = strstr(in, "\r\n\r\n"), *size = strstr(in, "Content-Length: ");
        if (end == NULL) continue;
        if (size == NULL || strncmp(in, "HTTP/1.1 ", 9) != 0) die("no answer");
        *body = end + 4;
        *length = strtoul(size + 16, NULL, 10);
        if (used == (size_t)(*body - in) + *length) return (int)strtol(in + 9, NULL, 10);
        if (used == ROOM - 1) die("an answer is too long");
    }
}

static void wrong(const char *request, int status, const char *body) {
    fprintf(stderr, "load: the answer to\n%s\nis %d:\n%s\n", request, status, body);
    exit(EXIT_FAILURE);
}

/* Bytes that follow from the numbers. */
static size_t value_of(char *to, long client, long number) {
    size_t length = 10 + (size_t)(number * 37 % 900);
    for (size_t i = 0; i < length; i++) to[i] = (char)('a' + (client + number + (long)i) % 26);
    to[length] = 0;
    return length;
}

static void *client(void *arg) {
    long me = (long)(intptr_t)arg, sent_here = 0;
    char out[ROOM], in[ROOM], value[2000];
    const char *body;
    size_t length;
    int file = open_connection();
    for (long number = 0; atomic_fetch_sub(&left, 1) > 0; number++) {
        if (++sent_here % PER_CONNECTION == 0) { /* connections come and go */
            close(file);
            file = open_connection();
        }
        int status, kind = (int)(number % 4);
        if (kind == 0) {
            snprintf(out, sizeof out, "GET /hello?name=Client+%ld%%3C%ld HTTP/1.1\r\nHost: x\r\nUser-Agent: load\r\n\r\n", me, number);
            send_all(file, out, strlen(out));
            status = receive(file, in, &body, &length);
            char right[200];
            snprintf(right, sizeof right, "<html><body><p>Hello, Client %ld&lt;%ld!</p></body></html>\n", me, number);
            if (status != 200 || strcmp(body, right) != 0) wrong(out, status, body);
        } else if (kind == 1 || kind == 2) { /* kept, then asked for */
            size_t size = value_of(value, me, number - kind);
            bool put = kind == 1;
            snprintf(out, sizeof out, "%s /tenant/tenant%ld/key%ld HTTP/1.1\r\nContent-Length: %zu\r\n\r\n%s", put ? "PUT" : "GET",
                     me, (number - kind) / 4 % 20, put ? size : 0, put ? value : "");
            send_all(file, out, strlen(out));
            status = receive(file, in, &body, &length);
            if (status != 200 || (put ? strcmp(body, "kept\n") != 0 : length != size || memcmp(body, value, size) != 0))
                wrong(out, status, body);
        } else if (number / 4 % OVER_LIMIT == 0) { /* a tenant that wants too much, at last */
            memset(value, 'x', 1500);
            value[1500] = 0;
            snprintf(out, sizeof out, "PUT /tenant/greedy/%ld-%ld HTTP/1.1\r\nContent-Length: 1500\r\n\r\n%s", me, number, value);
            send_all(file, out, strlen(out));
            status = receive(file, in, &body, &length);
            if (status == 507) refused++;
            else if (status != 200) wrong(out, status, body);
        } else {
            snprintf(out, sizeof out, "GET /%s HTTP/1.1\r\nHost: x\r\n\r\n", number % 8 < 4 ? "nowhere" : "tenant/nobody");
            send_all(file, out, strlen(out));
            status = receive(file, in, &body, &length);
            if (status != 404) wrong(out, status, body);
        }
    }
    close(file);
    return NULL;
}

int main(int argc, char **argv) {
    long port = argc > 1 ? strtol(argv[1], NULL, 10) : 0, requests = argc > 2 ? strtol(argv[2], NULL, 10) : 50000;
    long connections = argc > 3 ? strtol(argv[3], NULL, 10) : 8;
    if (port < 1 || port > 65535 || requests < 1 || connections < 1 || connections > MOST_CONNECTIONS) {
        fprintf(stderr, "usage: load PORT [REQUESTS [CONNECTIONS]]\n");
        return 2;
    }
    server = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    left = requests;
    struct timespec from, to;
    clock_gettime(CLOCK_MONOTONIC, &from);
    pthread_t threads[MOST_CONNECTIONS];
    for (long i = 0; i < connections; i++)
        if (pthread_create(&threads[i], NULL, client, (void *)(intptr_t)i) != 0) die("pthread_create");
    for (long i = 0; i < connections; i++) pthread_join(threads[i], NULL);
    clock_gettime(CLOCK_MONOTONIC, &to);
    double seconds = (double)(to.tv_sec - from.tv_sec) + (double)(to.tv_nsec - from.tv_nsec) / 1e9;
    printf("%ld requests over %ld connections, all answers right, %.0f requests/s; %ld puts over the limit refused\n", requests,
           connections, (double)requests / seconds, (long)refused);
    if (requests >= 40000 && refused == 0) {
        fprintf(stderr, "load: no tenant's limit was ever reached\n");
        return EXIT_FAILURE;
    }
    return EXIT_SUCCESS;
}
