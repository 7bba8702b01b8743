/* A server that runs on and leaks: a block of 100 bytes each millisecond, from one function, until its input ends. */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Not inlined, not left out, not left by a jump: its name is looked for. */
__attribute__((noinline)) void *forgets(size_t size) {
    void *block = malloc(size);
    __asm__ volatile("" : "+r"(block) : : "memory");
    return block;
}

int main(void) {
    struct pollfd input = {STDIN_FILENO, POLLIN, 0};
    char *before = malloc(5000);
    if (before == NULL) return 2;
    memset(before, 1, 5000);
    puts("ready");
    fflush(stdout);
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
