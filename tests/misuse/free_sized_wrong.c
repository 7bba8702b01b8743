/* Frees a block with a size that it does not have. The block is freed all the same. */
#include "misuse.h"

int main(void) {
    void *p = ak_alloc(24);
    ak_free_sized(hidden(p), 32);
    ak_stats_t stats;
    stats.struct_size = sizeof stats;
    if (!ak_stats_get(&stats) || stats.current_bytes != 0) return 7;
    return finish(1);
}

/* FAULT */
/* EXPECT-ERR: allokit: free of 0xADDR with size 32, but the block has 24 bytes */
/* EXPECT-ERR: |  allocated at free_sized_wrong.c:5 (main) */
/* EXPECT-ERR: |  freed at     free_sized_wrong.c:6 (main) */
