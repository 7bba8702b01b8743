/* The handler ends the program; what runs at exit allocates and frees. */
#include "places.h"

static void handler(const ak_fault_t *fault, void *arg) {
    (void)fault;
    (void)arg;
    exit(0);
}

static void at_exit(void) {
    for (unsigned i = 0; i < 1000; i++) ak_free(ak_alloc(i * 100));
    REQUIRE(ak_check() == 0);
}

int main(void) {
    REQUIRE(atexit(at_exit) == 0 && ak_error_handler_set(handler, NULL));
    char *block = ak_alloc(24);
    memset(hidden(block), 'x', 26);
    ak_free(block);
    return 1;
}

/* LEAVES */
/* EXPECT: allokit: overflow of 0xADDR, a block of 24 bytes: written up to 2 bytes past its end, first at offset 24 */
/* EXPECT: |  allocated at handler_exits.c:17 (main) */
/* EXPECT: |  freed at     handler_exits.c:19 (main) */
