/* Resizes a block of the general functions as if it were an arena's. */
#include "misuse.h"

int main(void) {
    watch(AK_FAULT_ALLOCATOR_MISMATCH, "realloc", "arena", NULL, 6, 10);
    ak_arena_t *a = ak_arena_new(NULL);
    char *block = ak_strdup("a block");
    if (ak_arena_alloc(a, 10) == NULL) return 2;
    errno = 0;
    if (ak_arena_realloc(a, block, 8, 500) != NULL) return 10;
    if (errno != EINVAL || strcmp(block, "a block") != 0 || ak_arena_check(a) != 0) return 11;
    ak_free(block);
    ak_arena_destroy(a);
    return finish(1);
}

/* FAULT */
/* EXPECT-ERR: allokit: realloc of 0xADDR in arena: what is given belongs to another owner or to none */
/* EXPECT-SITES: |  arena made at arena_block_of_nobody.c:6 */
/* EXPECT-SITES: |  realloc at arena_block_of_nobody.c:10 */
/* EXPECT-HANDLER: handler: allocator mismatch */
