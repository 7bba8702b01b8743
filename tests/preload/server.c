/* A server that runs on and leaks: a block of 100 bytes each millisecond, from one function, until its input ends. `server leave` ends
 * at once, and a forked child of it waits for the end of its input. `server reuse` closes all files that it knows nothing of and
 * opens pipes in their place: what is written there is its own. */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* Not inlined, not left out, not left by a jump: its name is looked for. */
__attribute__((noinline)) void *forgets(size_t size) {
    void *block = malloc(size);
    __asm__ volatile("" : "+r"(block) : : "memory");
    return block;
}

int main(int argc, char **argv) {
    struct pollfd input = {STDIN_FILENO, POLLIN, 0};
    char *before = malloc(5000);
    if (before == NULL) return 2;
    memset(before, 1, 5000);
    puts("ready");
    fflush(stdout);
    if (argc > 1 && strcmp(argv[1], "reuse") == 0) {
        int ends[2], count = 0, bytes;
        for (int fd = 3; fd < 64; fd++) close(fd);
        for (; count < 10 && pipe(ends) == 0; count++) {
            if (write(ends[1], "stats\n", 6) != 6) return 2;
        }
        usleep(300000);
        for (int fd = 3; fd < 3 + 2 * count; fd += 2) {
            if (ioctl(fd, FIONREAD, &bytes) != 0 || bytes != 6) return 3;
        }
        return 0;
    }
    if (argc > 1) {
        if (fork() != 0) return 0;
        return poll(&input, 1, 20000) == 1 ? 0 : 1;
    }
    /* (A signal ends the wait, with -1.) */
    while (poll(&input, 1, 1) <= 0) {
        char *kept = forgets(100);
        char *used = malloc(64);
        if (kept == NULL || used == NULL) return 2;
        memset(kept, 2, 100);
        free(used);
    }
    free(before);
    return 0;
}
