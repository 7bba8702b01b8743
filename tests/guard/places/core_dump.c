/* Right. What a core dump holds of the address space for large blocks: those that are live. */
#include "places.h"

/* Bytes that are left out of a dump, and whether `here` is; how many mappings there are. */
static size_t left_out(const void *here, int *here_too, int *mappings) {
    char line[512];
    size_t bytes = 0, start = 0, end = 0;
    FILE *maps = fopen("/proc/self/smaps", "r");
    REQUIRE(maps != NULL);
    *here_too = *mappings = 0;
    while (fgets(line, sizeof line, maps)) {
        size_t from, to;
        if (sscanf(line, "%zx-%zx", &from, &to) == 2) {
            start = from, end = to;
            ++*mappings;
        }
        if (strncmp(line, "VmFlags:", 8) != 0 || strstr(line, " dd") == NULL) continue;
        bytes += end - start;
        if ((uintptr_t)here >= start && (uintptr_t)here < end) *here_too = 1;
    }
    fclose(maps);
    return bytes;
}

int main(void) {
    int out, before, mappings;
    char *block = ak_alloc(300000);
    memset(block, 1, 300000);
    REQUIRE(left_out(block, &out, &before) > (size_t)60 << 30 && !out);
    REQUIRE((block = ak_realloc(block, 500000)) != NULL);
    left_out(block + 450000, &out, &mappings);
    REQUIRE(!out && mappings == before);
    ak_free(block);
    REQUIRE(left_out(hidden(block), &out, &mappings) > (size_t)60 << 30 && out && mappings < before);
    return 0;
}

/* NOTHING */
