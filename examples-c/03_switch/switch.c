/*
 * 03_switch - one source, any backend: which allocator serves it is decided by what is linked.
 *
 * CMake links this file with Allokit::alloc, and with each of Allokit::native, ::mimalloc, ::jemalloc and ::system that
 * the package has. Nothing in the program, and nothing in alloc.h, depends on the choice:
 *
 *     ./03_switch             prints the name of the backend
 *     ./03_switch mimalloc    and fails if it is another
 */
#include "alloc.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Some work with a result that no backend may change: many blocks of many sizes, resized and checked. */
static uint32_t churn(void) {
    enum { SLOTS = 512, ROUNDS = 50000 };
    static unsigned char *slots[SLOTS];
    static size_t sizes[SLOTS];
    uint32_t random = 1, sum = 0;

    for (int round = 0; round < ROUNDS; round++) {
        random = random * 1664525u + 1013904223u;
        size_t slot = (random >> 8) % SLOTS;
        size_t size = 1 + (random >> 17) % 2000;
        unsigned char *block = ak_realloc(slots[slot], size); /* NULL allocates */
        if (block == NULL) {
            fprintf(stderr, "switch: out of memory\n");
            exit(EXIT_FAILURE);
        }
        size_t kept = sizes[slot] < size ? sizes[slot] : size;
        for (size_t i = 0; i < kept; i += 97) sum = sum * 31 + block[i]; /* the old contents must still be there */
        memset(block, (int)(slot & 0xff), size);
        slots[slot] = block;
        sizes[slot] = size;
    }
    for (int slot = 0; slot < SLOTS; slot++) ak_free(slots[slot]);
    return sum;
}

int main(int argc, char **argv) {
    const char *backend = ak_backend_name();
    if (argc > 1 && strcmp(argv[1], backend) != 0) {
        fprintf(stderr, "switch: expected the %s backend, but %s is linked\n", argv[1], backend);
        return EXIT_FAILURE;
    }
    uint32_t sum = churn();
    printf("backend %s, checksum %08x\n", backend, (unsigned)sum);
    return sum == 0x70232386u ? EXIT_SUCCESS : EXIT_FAILURE;
}
