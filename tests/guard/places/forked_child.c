/* The child of a program whose other threads allocate and free all the time writes too far. */
#include "places.h"

static void *work(void *arg) {
    (void)arg;
    for (unsigned i = 0;; i++) ak_free(ak_alloc(i % 5000));
    return NULL;
}

int main(void) {
    for (int i = 0; i < 3; i++) {
        pthread_t thread;
        REQUIRE(pthread_create(&thread, NULL, work, NULL) == 0);
    }
    for (int i = 0; i < 50; i++) {
        pid_t child = fork();
        if (child == 0) {
            char *block = ak_alloc(20);
            if (i == 49) block = memset(hidden(block), 'x', 23);
            ak_free(block);
            _exit(ak_fault_count() == (i == 49) && ak_check() == 0 ? 0 : 1);
        }
        if (i == 49) return end_as(child);
        int status;
        REQUIRE(waitpid(child, &status, 0) == child && status == 0);
    }
    return 2;
}

/* EXPECT: allokit: overflow of 0xADDR, a block of 20 bytes: written up to 3 bytes past its end, first at offset 20 */
/* EXPECT: |  allocated at forked_child.c:18 (main) */
/* EXPECT: |  freed at     forked_child.c:20 (main) */
