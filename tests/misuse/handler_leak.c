/* Loses blocks of two places; the handler sees each place, the larger one first, and what was being balanced. */
#include "misuse.h"

static int calls;

static void handler(const ak_fault_t *fault, void *arg) {
    (void)arg;
    look_at(fault, AK_FAULT_LEAK, NULL);
    REQUIRE(strcmp(fault->context, "request 7") == 0 && fault->block == NULL);
    REQUIRE(is_line(&fault->allocated, calls == 0 ? 17 : 26) && is_nowhere(&fault->now));
    REQUIRE(calls == 0 ? fault->count == 2 && fault->size == 200 : fault->count == 1 && fault->size == 50);
    calls++;
}

void *one(void);
void *one(void) {
    return ak_alloc(100);
}

int main(void) {
    void *lost[3];
    if (!ak_error_handler_set(handler, NULL)) return 2;
    ak_mark();
    lost[0] = one();
    lost[1] = one();
    lost[2] = ak_alloc(50);
    if (ak_assert_balanced("request 7")) return 3;
    for (int i = 0; i < 3; i++) ak_free(lost[i]);
    if (!ak_assert_balanced("request 7")) return 4;
    return calls == 2 ? finish(0) : 8;
}

/* FAULT */
/* EXPECT-ERR: allokit: request 7: 3 blocks, 250 bytes, live since the mark, from 2 call sites */
/* EXPECT-ERR: |           count         bytes  call site */
/* EXPECT-ERR: |               2           200  handler_leak.c:17 (one) */
/* EXPECT-ERR: |               1            50  handler_leak.c:26 (main) */
/* EXPECT-HANDLER: handler: leak */
/* EXPECT-HANDLER: handler: leak */
