/* Three wrong frees, all seen: one that was reported must not hide the next. */
#include "misuse.h"

int main(void) {
    char local = 0;
    ak_policy_set(AK_POLICY_REPORT);
    char *p = (char *)ak_alloc(24);
    ak_free(hidden(p + 8));
    ak_free(p);
    ak_free(hidden(p));
    ak_free(hidden(&local));
    return finish(3);
}

/* STATUS: 0 */
/* EXPECT-ERR: allokit: free of 0xADDR, which is 8 bytes into a block of 24 bytes at 0xADDR2 */
/* EXPECT-ERR: |  allocated at report_goes_on.c:7 (main) */
/* EXPECT-ERR: |  freed at     report_goes_on.c:8 (main) */
/* EXPECT-ERR: allokit: double free of 0xADDR2, a block of 24 bytes */
/* EXPECT-ERR: |  allocated at report_goes_on.c:7 (main) */
/* EXPECT-ERR: |  freed at     report_goes_on.c:9 (main) */
/* EXPECT-ERR: |  freed again  report_goes_on.c:10 (main) */
/* EXPECT-ERR: allokit: free of 0xADDR3, which is no live block of this allocator */
/* EXPECT-ERR: |  freed at     report_goes_on.c:11 (main) */
