/* The handler itself frees a block twice: under abort the second fault ends the program at once. */
#include "misuse.h"

void handler(const ak_fault_t *fault, void *arg);
void handler(const ak_fault_t *fault, void *arg) {
    (void)fault;
    (void)arg;
    void *block = ak_alloc(16);
    ak_free(block);
    ak_free(hidden(block));
    _Exit(9);
}

int main(void) {
    if (!ak_error_handler_set(handler, NULL)) return 2;
    void *block = ak_alloc(32);
    ak_free(block);
    ak_free(hidden(block));
    return 8;
}

/* STATUS: SIGABRT */
/* EXPECT-ERR: allokit: double free of 0xADDR, a block of 32 bytes */
/* EXPECT-ERR: |  allocated at handler_again_abort.c:16 (main) */
/* EXPECT-ERR: |  freed at     handler_again_abort.c:17 (main) */
/* EXPECT-ERR: |  freed again  handler_again_abort.c:18 (main) */
/* EXPECT-ERR: allokit: double free of 0xADDR2, a block of 16 bytes */
/* EXPECT-ERR: |  allocated at handler_again_abort.c:8 (handler) */
/* EXPECT-ERR: |  freed at     handler_again_abort.c:9 (handler) */
/* EXPECT-ERR: |  freed again  handler_again_abort.c:10 (handler) */
/* EXPECT-ERR: allokit: aborting (ALLOKIT_POLICY=report goes on) */
