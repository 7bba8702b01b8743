/* Writes before a block; the handler sees it when the block is freed. */
#include "misuse.h"

static char *block;

static void handler(const ak_fault_t *fault, void *arg) {
    (void)arg;
    look_at(fault, AK_FAULT_UNDERFLOW, "free");
    REQUIRE(fault->block == block && is_line(&fault->now, 17));
}

int main(void) {
    if (!ak_error_handler_set(handler, NULL)) return 2;

    block = (char *)ak_alloc(64);
    ((char *)hidden(block))[-1] ^= 1;
    ak_free(block);
    return finish(1);
}

/* FAULT */
/* EXPECT-ERR: allokit: block at 0xADDR is damaged: its header was overwritten */
/* EXPECT-ERR: |  freed at     handler_underflow.c:17 (main) */
/* EXPECT-HANDLER: handler: underflow */
