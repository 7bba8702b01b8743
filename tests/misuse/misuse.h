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
 *   ONLY: native           only on this backend
 *   EXPECT-HANDLER: line   what the program's own handler writes: under each policy, quiet too, and before the aborting
 *                          line; it stands after the lines of EXPECT-ERR
 *   EXPECT-ERR: line       the lines of stderr, all of them, to the letter; a leading | keeps spaces at the front
 *   EXPECT-SITES: line     the same, of a line that is there only when the program is compiled with AK_TRACK
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

/* What watch() below expects of the one report, and how many there were. */
typedef struct watched {
    ak_fault_kind_t kind;
    const char *operation, *owner, *name;
    uint32_t made, now;
    uint64_t calls;
    bool on;
} watched_t;

static watched_t watched_;

/* The status of a program that went on after its fault: 0 when so many faults were counted, the handler saw them, and the
 * allocator still works. */
static inline int finish(uint64_t faults) {
    void *blocks[100];
    if (ak_fault_count() != faults || (watched_.on && watched_.calls != faults)) return 3;
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

/* ---- for the programs that set a handler ---- */

/* Ends the program at once, so that the runner sees another end than the policy's. */
#define REQUIRE(condition)                                                                                             \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "line %d: %s\n", __LINE__, #condition);                                                    \
            _Exit(9);                                                                                                  \
        }                                                                                                              \
    } while (0)

/* Whether a place is the one of that line: with AK_TRACK by file and line, else by any address. */
static inline bool is_line(const ak_place_t *place, uint32_t line) {
#ifdef AK_TRACK
    return place->file != NULL && strcmp(place->file, __BASE_FILE__) == 0 && place->line == line && place->address == 0;
#else
    return place->file == NULL && place->line == 0 && place->address != 0 && line != 0;
#endif
}

static inline bool is_nowhere(const ak_place_t *place) {
    return place->file == NULL && place->function == NULL && place->address == 0 && place->line == 0;
}

/* What every report holds, and what these have in common: the kind, and what becomes of the program. */
static inline void look_at(const ak_fault_t *fault, ak_fault_kind_t kind, const char *operation) {
    REQUIRE(fault->struct_size == sizeof *fault);
    REQUIRE(fault->kind == kind);
    REQUIRE(fault->policy == ak_policy_get());
    REQUIRE((operation == NULL) == (fault->operation == NULL));
    REQUIRE(operation == NULL || strcmp(fault->operation, operation) == 0);
    /* A handler may allocate. */
    char *copy = (char *)ak_strdup(ak_fault_name(kind));
    REQUIRE(copy != NULL);
    fprintf(stderr, "handler: %s\n", copy);
    ak_free(copy);
}

static inline bool is_same(const char *a, const char *b) {
    return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

/* A line of the program's own, where places are passed; 0 and what was compiled without AK_TRACK: not known. */
static inline bool is_given(const ak_place_t *place, uint32_t line) {
#ifdef AK_TRACK
    if (line != 0) return is_line(place, line);
#else
    (void)line;
#endif
    return is_nowhere(place);
}

static inline void watcher(const ak_fault_t *fault, void *arg) {
    watched_t *wanted = (watched_t *)arg;
    look_at(fault, wanted->kind, wanted->operation);
    REQUIRE(is_same(fault->owner, wanted->owner) && is_same(fault->name, wanted->name));
    REQUIRE(is_given(&fault->made, wanted->made));
    REQUIRE(is_given(&fault->now, wanted->now));
    REQUIRE(fault->block != NULL && is_nowhere(&fault->allocated) && is_nowhere(&fault->freed));
    wanted->calls++;
}

/* From now on each report is to be this one: the kind, what was being done, in which owner of which name, the lines that made
 * the owner and that did it. */
static inline void watch(ak_fault_kind_t kind, const char *operation, const char *owner, const char *name, uint32_t made,
                         uint32_t now) {
    watched_ = (watched_t){kind, operation, owner, name, made, now, 0, true};
    REQUIRE(ak_error_handler_set(watcher, &watched_));
}

#endif /* MISUSE_H */
