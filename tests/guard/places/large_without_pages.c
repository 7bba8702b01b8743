/* A program that has had more large blocks than get pages of their own: further ones have canaries, and their ends are
 * looked at. */
#include "places.h"

int main(void) {
    for (int i = 0; i < 1024; i++) ak_free(ak_alloc(100000));
    char *over = ak_alloc(100000), *freed = ak_alloc(200000), *grown = ak_alloc(100000);
    memset(hidden(over), 'x', 100002);
    ak_free(over);
    ak_free(freed);
    memset(hidden(freed), 'x', 3);
    for (size_t size = 100000; size < 3000000; size += 100000) {
        grown[0] = 'a';
        grown[size - 1] = 'b';
        REQUIRE((grown = ak_realloc(grown, size * 2)) != NULL && grown[0] == 'a' && grown[size - 1] == 'b');
        REQUIRE(ak_usable_size(grown) == size * 2);
        REQUIRE((grown = ak_realloc(grown, size + 100000)) != NULL && grown[0] == 'a' && grown[size - 1] == 'b');
    }
    ak_free(grown);
    unsigned char *zeroed = ak_calloc(1, 3000000);
    for (size_t i = 0; i < 3000000; i++) REQUIRE(zeroed[i] == 0);
    ak_free(zeroed);
    REQUIRE(ak_check() == 1 && ak_fault_count() == 2);
    return 0;
}

/* ENV ALLOKIT_GUARD_PAGES=0 */
/* EXPECT: allokit: overflow of 0xADDR, a block of 100000 bytes: written up to 2 bytes past its end, first at offset 100000 */
/* EXPECT: |  allocated at large_without_pages.c:7 (main) */
/* EXPECT: |  freed at     large_without_pages.c:9 (main) */
/* EXPECT REPORT: allokit: write after free to 0xADDR2, a block of 200000 bytes: from offset 0 to 2 */
/* EXPECT REPORT: |  allocated at large_without_pages.c:7 (main) */
/* EXPECT REPORT: |  freed at     large_without_pages.c:10 (main) */
/* EXPECT REPORT: |  noticed at   large_without_pages(main+0xADDR3) */
