/* Ends a stretch of another thread. */
#include "misuse.h"

#include <pthread.h>

static void *end_it(void *arg) {
    ak_scratch_end(*(ak_scratch_t *)arg);
    return NULL;
}

int main(void) {
    watch(AK_FAULT_ALLOCATOR_MISMATCH, "scratch end", NULL, NULL, 0, 7);
    pthread_t thread;
    ak_scratch_t mine = ak_scratch_begin();
    char *kept = ak_arena_strdup(mine.arena, "kept");
    if (pthread_create(&thread, NULL, end_it, &mine) != 0) return 2;
    pthread_join(thread, NULL);
    if (strcmp(kept, "kept") != 0) return 10;
    ak_scratch_end(mine);
    return finish(1);
}

/* FAULT */
/* EXPECT-ERR: allokit: scratch end of 0xADDR: what is given belongs to another owner or to none */
/* EXPECT-SITES: |  scratch end at scratch_of_another_thread.c:7 */
/* EXPECT-HANDLER: handler: allocator mismatch */
