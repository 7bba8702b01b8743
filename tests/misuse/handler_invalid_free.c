/* Frees the middle of a block, then a variable; the handler is told how far into which block. */
#include "misuse.h"

static char *block;
static char local[64];
static int calls;

static void handler(const ak_fault_t *fault, void *arg) {
    (void)arg;
    calls++;
    look_at(fault, AK_FAULT_INVALID_FREE, calls == 1 ? "free" : "realloc");
    if (calls == 1) {
        REQUIRE(fault->block == block + 10 && fault->offset == 10 && fault->size == 100);
        REQUIRE(is_line(&fault->allocated, 25) && is_nowhere(&fault->freed) && is_line(&fault->now, 27));
    } else {
        REQUIRE(fault->block == local && fault->offset == 0 && fault->size == 0);
        REQUIRE(is_nowhere(&fault->allocated) && is_line(&fault->now, 29));
    }
}

int main(void) {
    ak_policy_t policy = ak_policy_get();
    if (!ak_error_handler_set(handler, NULL)) return 2;

    block = (char *)ak_alloc(100);
    void *inside = hidden(block + 10);
    ak_free(inside);
    if (!ak_policy_set(AK_POLICY_QUIET)) return 2;
    if (ak_realloc(hidden(local), 10) != NULL || !ak_policy_set(policy)) return 4;
    ak_free(block);
    return calls == 2 ? finish(2) : 8;
}

/* STATUS: 0 */
/* ENV: ALLOKIT_POLICY=report */
/* EXPECT-ERR: allokit: free of 0xADDR, which is 10 bytes into a block of 100 bytes at 0xADDR2 */
/* EXPECT-ERR: |  allocated at handler_invalid_free.c:25 (main) */
/* EXPECT-ERR: |  freed at     handler_invalid_free.c:27 (main) */
/* EXPECT-HANDLER: handler: invalid free */
/* EXPECT-HANDLER: handler: invalid free */
