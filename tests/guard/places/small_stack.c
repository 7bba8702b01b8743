/* In a signal handler with a stack of 16 KiB of its own, in a thread whose stack is as small as can be. */
#include "places.h"

static void handler(int number) {
    (void)number;
    char *block = ak_alloc(40);
    memset(hidden(block), 'x', 41);
    ak_free(block);
}

static void *work(void *arg) {
    static char stack[16 << 10];
    stack_t other;
    memset(&other, 0, sizeof other);
    other.ss_sp = stack;
    other.ss_size = sizeof stack;
    REQUIRE(sigaltstack(&other, NULL) == 0);
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = handler;
    action.sa_flags = SA_ONSTACK;
    REQUIRE(sigaction(SIGUSR1, &action, NULL) == 0);
    raise(SIGUSR1);
    return arg;
}

int main(void) {
    pthread_attr_t attributes;
    pthread_t thread;
    REQUIRE(pthread_attr_init(&attributes) == 0 && pthread_attr_setstacksize(&attributes, 64 << 10) == 0);
    REQUIRE(pthread_create(&thread, &attributes, work, NULL) == 0 && pthread_join(thread, NULL) == 0);
    return ak_fault_count() == 1 && ak_check() == 0 ? 0 : 1;
}

/* EXPECT: allokit: overflow of 0xADDR, a block of 40 bytes: written up to 1 byte past its end, first at offset 40 */
/* EXPECT: |  allocated at small_stack.c:6 (handler) */
/* EXPECT: |  freed at     small_stack.c:8 (handler) */
