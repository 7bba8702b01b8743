/* Without tracking native knows some wrong frees, and can only end the program; the handler sees those too. */
#include "misuse.h"

static char local[64];

static void handler(const ak_fault_t *fault, void *arg) {
    (void)arg;
    REQUIRE(fault->policy == AK_POLICY_ABORT && ak_policy_get() == AK_POLICY_QUIET);
    REQUIRE(fault->kind == AK_FAULT_INVALID_FREE && fault->block == local && strcmp(fault->operation, "free") == 0);
    void *blocks[100];
    for (size_t i = 0; i < 100; i++) REQUIRE((blocks[i] = ak_alloc(i * 50)) != NULL);
    for (size_t i = 0; i < 100; i++) ak_free(blocks[i]);
    fprintf(stderr, "handler: %s\n", ak_fault_name(fault->kind));
}

int main(void) {
    if (!ak_error_handler_set(handler, NULL)) return 2;
    ak_free(hidden(local));
    return 8;
}

/* STATUS: SIGABRT */
/* ONLY: native */
/* ENV: ALLOKIT_TRACK=off ALLOKIT_POLICY=quiet */
/* EXPECT-ERR: allokit: free of 0xADDR, which is no live block of this allocator */
/* EXPECT-HANDLER: handler: invalid free */
