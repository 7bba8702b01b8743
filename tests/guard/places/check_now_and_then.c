/* ALLOKIT_CHECK=100: a live block's overflow is noticed at the hundredth free after it at the latest. */
#include "places.h"

int main(void) {
    char *block = ak_alloc(24);
    for (int i = 0; i < 150; i++) ak_free(ak_alloc(8));
    memset(hidden(block), 'x', 26);
    for (int i = 0; i < 49; i++) ak_free(ak_alloc(8));
    REQUIRE(ak_fault_count() == 0);
    for (int i = 0; i < 51; i++) ak_free(ak_alloc(8));
    return ak_fault_count() == 1 ? 0 : 1;
}

/* ENV ALLOKIT_CHECK=100 */
/* EXPECT: allokit: overflow of 0xADDR, a block of 24 bytes: written up to 2 bytes past its end, first at offset 24 */
/* EXPECT: |  allocated at check_now_and_then.c:5 (main) */
