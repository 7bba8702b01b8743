/* Ends a stretch that has ended. */
#include "misuse.h"

int main(void) {
    watch(AK_FAULT_ALLOCATOR_MISMATCH, "scratch end", NULL, NULL, 0, 11);
    ak_scratch_t one = ak_scratch_begin();
    if (one.arena == NULL) return 2;
    ak_scratch_end(one);
    ak_scratch_t next = ak_scratch_begin();
    char *kept = ak_arena_strdup(next.arena, "kept");
    ak_scratch_end(one);
    if (strcmp(kept, "kept") != 0) return 10;
    ak_scratch_end(next);
    return finish(1);
}

/* FAULT */
/* EXPECT-ERR: allokit: scratch end of 0xADDR: what is given belongs to another owner or to none */
/* EXPECT-SITES: |  scratch end at scratch_ended_twice.c:11 */
/* EXPECT-HANDLER: handler: allocator mismatch */
