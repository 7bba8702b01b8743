/* Frees a block twice; the handler sees all three places. */
#include "misuse.h"

static void *block;
static int calls;

static void handler(const ak_fault_t *fault, void *arg) {
    look_at(fault, AK_FAULT_DOUBLE_FREE, "free");
    REQUIRE(arg == &calls && fault->block == block && fault->size == 24 && fault->offset == 0);
    REQUIRE(is_line(&fault->allocated, 21) && is_line(&fault->freed, 22) && is_line(&fault->now, 24));
    REQUIRE(is_nowhere(&fault->made) && fault->owner == NULL && fault->name == NULL && fault->context == NULL);
    REQUIRE(errno != 33);
    calls++;
    errno = 44;
}

int main(void) {
    if (!ak_error_handler_set(handler, NULL) || !ak_error_handler_set(handler, &calls)) return 2;
    errno = 0;

    block = ak_alloc(24);
    ak_free(block);
    errno = 7;
    ak_free(hidden(block));
    return calls == 1 && errno == 7 ? finish(1) : 8;
}

/* FAULT */
/* EXPECT-ERR: allokit: double free of 0xADDR, a block of 24 bytes */
/* EXPECT-ERR: |  allocated at handler_double_free.c:21 (main) */
/* EXPECT-ERR: |  freed at     handler_double_free.c:22 (main) */
/* EXPECT-ERR: |  freed again  handler_double_free.c:24 (main) */
/* EXPECT-HANDLER: handler: double free */
