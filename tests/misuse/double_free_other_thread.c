/* Frees a block that another thread has freed. */
#include "misuse.h"
#include <pthread.h>

void *drop(void *p);
void *drop(void *p) {
    ak_free(p);
    return NULL;
}

int main(void) {
    char *p = (char *)ak_strdup("a text");
    void *copy = hidden(p);
    pthread_t thread;
    if (pthread_create(&thread, NULL, drop, p) != 0) return 2;
    pthread_join(thread, NULL);
    ak_free(copy);
    return finish(1);
}

/* FAULT */
/* EXPECT-ERR: allokit: double free of 0xADDR, a block of 7 bytes */
/* EXPECT-ERR: |  allocated at double_free_other_thread.c:12 (main) */
/* EXPECT-ERR: |  freed at     double_free_other_thread.c:7 (drop) */
/* EXPECT-ERR: |  freed again  double_free_other_thread.c:17 (main) */
