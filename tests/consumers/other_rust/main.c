/*
 * main.c - a program with two Rust libraries: Allokit, and one with std (other.rs).
 */
#include <alloc.h>

#include <stdio.h>

uint32_t other_work(uint32_t n);
uint32_t other_unwinds(void);

int main(void) {
    void *block = ak_alloc(100);
    if (block == NULL || other_work(10) != 60 || other_unwinds() != 1) {
        fprintf(stderr, "the other library does not work\n");
        return 1;
    }
    ak_free(block);
    return 0;
}
