/* Many threads make mistakes at once, while the handler is set and unset; each call has the argument of its function. */
#include "misuse.h"

#include <pthread.h>
#include <stdatomic.h>

static atomic_int odd, even;
static atomic_bool over;

static void count_odd(const ak_fault_t *fault, void *arg) {
    (void)fault;
    REQUIRE(arg == &odd);
    void *block = ak_alloc(100);
    ak_free(block);
    odd++;
}

static void count_even(const ak_fault_t *fault, void *arg) {
    (void)fault;
    REQUIRE(arg == &even);
    even++;
}

static void *work(void *arg) {
    for (int i = 0; i < 2000; i++) {
        void *block = ak_alloc(48);
        ak_free(block);
        ak_free(arg); /* the middle of a block that is live all the time */
    }
    return NULL;
}

static void *change(void *arg) {
    while (!over) {
        if (!ak_error_handler_set(count_even, &even) || !ak_error_handler_set(count_odd, &odd)) return arg;
    }
    return NULL;
}

int main(void) {
    pthread_t threads[4];
    char *block = (char *)ak_alloc(64);
    void *failed = NULL;
    if (!ak_error_handler_set(count_odd, &odd)) return 2;
    if (pthread_create(&threads[0], NULL, change, block) != 0) return 2;
    for (int i = 1; i < 4; i++)
        if (pthread_create(&threads[i], NULL, work, (char *)hidden(block) + 16) != 0) return 2;
    for (int i = 1; i < 4; i++) pthread_join(threads[i], NULL);
    over = true;
    pthread_join(threads[0], &failed);
    ak_free(block);
    if (failed != NULL || odd + even != 6000) return 8;
    return finish(6000);
}

/* STATUS: 0 */
/* ENV: ALLOKIT_POLICY=quiet */
