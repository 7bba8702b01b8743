/* Writes one byte too far: a guarded library counts it. */
#include <alloc.h>

int main(void) {
    ak_policy_set(AK_POLICY_QUIET);
    char *volatile block = ak_alloc(24);
    char *volatile end = block + 24;
    *end = 'x';
    if (ak_check() != 1) return 1;
    ak_free(block);
    return ak_fault_count() == 2 ? 0 : 2;
}
