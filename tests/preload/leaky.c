/* leaky.c - leaves blocks behind. `leaky double`: frees one twice. `leaky resize`: resizes what is free. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void leaves_three(void);
void frees_twice(void);

static void *volatile kept[3];

__attribute__((noinline)) void leaves_three(void) {
    for (volatile int i = 0; i < 3; i++) kept[i] = malloc(100);
    kept[0] = NULL;
}

__attribute__((noinline)) void frees_twice(void) {
    void *volatile p = malloc(40);
    free(p);
    void *volatile again = p;
    free(again);
    puts("went on");
}

int main(int argc, char **argv) {
    leaves_three();
    for (int i = 0; i < 1000; i++) free(malloc(500));
    if (argc > 1 && strcmp(argv[1], "double") == 0) frees_twice();
    return 0;
}
