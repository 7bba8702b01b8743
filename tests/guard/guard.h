/* One bug a file, for blocks of SIZE bytes (8, 4096, 262144; given by the runner), run under the guarded preload library as C
 * and, with the same source, as C++. At its end each says what must come of it:
 *   EXPECT [sizes]: a line of the report (places stand for return addresses in the function); 0xADDR for an address,
 *     @SIZE@ and @OVER@ for SIZE and SIZE + 1; without sizes, for all of them
 *   DIES [sizes]: the signal that ends it, whatever the policy; what is not listed goes on under report and quiet
 *   NOTHING: right programs, and those whose bug does no harm here
 *   MUTE [sizes]: the checks (ALLOKIT_MUTE) without which the bug must be missed */
#ifndef GUARD_H
#define GUARD_H
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What the compiler is not to see through. */
static inline char *hidden(void *p) {
    char *volatile q = (char *)p;
    return q;
}

static inline size_t number(size_t n) {
    volatile size_t m = n;
    return m;
}

#define REQUIRE(condition)                                                                                             \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "line %d: %s\n", __LINE__, #condition);                                                    \
            _Exit(9);                                                                                                  \
        }                                                                                                              \
    } while (0)

#endif
