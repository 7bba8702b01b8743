/* The handler itself frees a block twice: that follows the policy too, and the handler is not called again for it. */
#include "misuse.h"

static int calls;

static void handler(const ak_fault_t *fault, void *arg) {
    (void)fault;
    (void)arg;
    calls++;
    void *block = ak_alloc(16);
    ak_free(block);
    ak_free(hidden(block));
}

int main(void) {
    if (!ak_error_handler_set(handler, NULL)) return 2;
    void *block = ak_alloc(32);
    ak_free(block);
    ak_free(hidden(block));
    if (calls != 1) return 8;
    ak_free(hidden(block)); /* outside it again */
    return calls == 2 && ak_fault_count() == 4 ? 0 : 9;
}

/* STATUS: 0 */
/* ENV: ALLOKIT_POLICY=quiet */
