/*
 * misuse.h - what the programs of this folder share. Each holds one bug. Directives in the comments at its end tell the
 * runner (cargo xtask test --only misuse) what must come of it:
 *
 *   FAULT                  a wrong call that tracking sees: run under each policy. abort: the lines of EXPECT-ERR, the
 *                          aborting line, SIGABRT. report: the lines, then the program goes on and ends with status 0.
 *                          quiet: nothing is printed, status 0.
 *   STATUS: 0 | SIGABRT    no fault: run once, this is how it ends
 *   ENV: NAME=value ...    its environment, beside ALLOKIT_TRACK=sites (which ENV may set otherwise)
 *   BUILD: notrack         only with a library that was built without tracking
 *   EXPECT-ERR: line       the lines of stderr, all of them, to the letter; a leading | keeps spaces at the front
 *
 * In a line 0xADDR, 0xADDR2 stand for addresses, the same one each time; @BACKEND@ for the backend's name. A place is
 * written file.c:12 (main); for a program compiled without AK_TRACK it stands for program(main+0x1f).
 */
#ifndef MISUSE_H
#define MISUSE_H

#include <alloc.h>

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 12
#pragma GCC diagnostic ignored "-Wuse-after-free" /* it is right, and here on purpose */
#endif

/* Hides from the compiler where a pointer came from: it would warn of every bug in this folder. */
static inline void *hidden(const volatile void *p) {
    void *copy = (void *)(uintptr_t)p;
    __asm__ volatile("" : "+r"(copy) : : "memory");
    return copy;
}

/* The status of a program that went on after its fault: 0 when so many faults were counted and the allocator still works. */
static inline int finish(uint64_t faults) {
    void *blocks[100];
    if (ak_fault_count() != faults) return 3;
    for (size_t i = 0; i < 100; i++) {
        blocks[i] = (ak_alloc)(i * 11);
        if (blocks[i] == NULL) return 4;
        memset(blocks[i], (int)i, i * 11);
    }
    for (size_t i = 0; i < 100; i++) {
        for (size_t j = 0; j < i * 11; j++)
            if (((unsigned char *)blocks[i])[j] != i) return 5;
        (ak_free)(blocks[i]);
    }
    return ak_fault_count() == faults ? 0 : 6;
}

#endif /* MISUSE_H */
