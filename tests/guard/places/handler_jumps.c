/* The handler leaves by longjmp, each time: it is called each time, and the heap goes on. */
#include "places.h"

static jmp_buf back;
static volatile int calls;

static void handler(const ak_fault_t *fault, void *arg) {
    (void)fault;
    (void)arg;
    calls++;
    longjmp(back, 1);
}

static void wrong(int depth) {
    volatile char room[64];
    room[0] = 0, (void)room[0];
    if (depth > 0) {
        wrong(depth - 1);
        return;
    }
    char *block = ak_alloc(24);
    memset(hidden(block), 'x', 26);
    ak_free(block);
}

int main(void) {
    REQUIRE(ak_error_handler_set(handler, NULL));
    for (volatile int i = 0; i < 3; i++)
        if (setjmp(back) == 0) wrong(i == 1 ? 0 : 20);
    for (unsigned i = 0; i < 100000; i++) ak_free(ak_alloc(i % 300));
    REQUIRE(calls == 3 && ak_fault_count() == 3 && ak_check() == 0);
    return 0;
}

/* LEAVES */
/* EXPECT: allokit: overflow of 0xADDR, a block of 24 bytes: written up to 2 bytes past its end, first at offset 24 */
/* EXPECT: |  allocated at handler_jumps.c:21 (wrong) */
/* EXPECT: |  freed at     handler_jumps.c:23 (wrong) */
/* EXPECT: allokit: overflow of 0xADDR2, a block of 24 bytes: written up to 2 bytes past its end, first at offset 24 */
/* EXPECT: |  allocated at handler_jumps.c:21 (wrong) */
/* EXPECT: |  freed at     handler_jumps.c:23 (wrong) */
/* EXPECT: allokit: overflow of 0xADDR3, a block of 24 bytes: written up to 2 bytes past its end, first at offset 24 */
/* EXPECT: |  allocated at handler_jumps.c:21 (wrong) */
/* EXPECT: |  freed at     handler_jumps.c:23 (wrong) */
