/* The handler frees the block that the report is of. */
#include "places.h"

static int calls;

static void handler(const ak_fault_t *fault, void *arg) {
    (void)arg;
    calls++;
    ak_free((void *)(uintptr_t)fault->block);
}

int main(void) {
    REQUIRE(ak_error_handler_set(handler, NULL));
    char *block = ak_alloc(24);
    memset(hidden(block), 'x', 26);
    ak_free(block);
    return calls == 1 && ak_fault_count() == 2 ? 0 : 1;
}

/* EXPECT: allokit: overflow of 0xADDR, a block of 24 bytes: written up to 2 bytes past its end, first at offset 24 */
/* EXPECT: |  allocated at handler_frees_the_block.c:14 (main) */
/* EXPECT: |  freed at     handler_frees_the_block.c:16 (main) */
/* EXPECT: allokit: double free of 0xADDR, a block that is already freed */
/* EXPECT: |  freed again  handler_frees_the_block.c:9 (handler) */
