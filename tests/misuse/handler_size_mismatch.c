/* Frees with a size that the block does not have; the handler sees both. */
#include "misuse.h"

static void *block;

static void handler(const ak_fault_t *fault, void *arg) {
    (void)arg;
    look_at(fault, AK_FAULT_SIZE_MISMATCH, "free");
    REQUIRE(fault->block == block && fault->size == 40 && fault->told_size == 41);
    REQUIRE(is_line(&fault->allocated, 16) && is_nowhere(&fault->freed) && is_line(&fault->now, 17));
}

int main(void) {
    if (!ak_error_handler_set(handler, NULL)) return 2;

    block = ak_alloc(40);
    ak_free_sized(hidden(block), 41);
    return finish(1);
}

/* FAULT */
/* EXPECT-ERR: allokit: free of 0xADDR with size 41, but the block has 40 bytes */
/* EXPECT-ERR: |  allocated at handler_size_mismatch.c:16 (main) */
/* EXPECT-ERR: |  freed at     handler_size_mismatch.c:17 (main) */
/* EXPECT-HANDLER: handler: size mismatch */
