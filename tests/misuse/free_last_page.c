/* Frees an address at the end of the address space. */
#include "misuse.h"

int main(void) {
    ak_free(hidden((const void *)(UINTPTR_MAX - 31)));
    return finish(1);
}

/* FAULT */
/* EXPECT-ERR: allokit: free of 0xffffffffffffffe0, which is no live block of this allocator */
/* EXPECT-ERR: |  freed at     free_last_page.c:5 (main) */
