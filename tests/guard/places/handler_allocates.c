/* The handler allocates, large blocks too, checks the heap, and frees. */
#include "places.h"

static int calls;

static void handler(const ak_fault_t *fault, void *arg) {
    (void)arg;
    REQUIRE(fault->kind == AK_FAULT_OVERFLOW && fault->offset == 24);
    void *blocks[300];
    for (int i = 0; i < 300; i++) REQUIRE((blocks[i] = ak_alloc((size_t)i * 700)) != NULL);
    REQUIRE(ak_check() == 0);
    for (int i = 0; i < 300; i++) ak_free(blocks[i]);
    calls++;
}

int main(void) {
    REQUIRE(ak_error_handler_set(handler, NULL));
    char *block = ak_alloc(24);
    memset(hidden(block), 'x', 26);
    ak_free(block);
    return calls == 1 && ak_fault_count() == 1 ? 0 : 1;
}

/* EXPECT: allokit: overflow of 0xADDR, a block of 24 bytes: written up to 2 bytes past its end, first at offset 24 */
/* EXPECT: |  allocated at handler_allocates.c:18 (main) */
/* EXPECT: |  freed at     handler_allocates.c:20 (main) */
