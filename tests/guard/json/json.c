/* Reports as lines of JSON, on stderr. */
#include "../places/places.h"

int main(void) {
    char *block = ak_alloc(24);
    memset(hidden(block), 'x', 27);
    ak_free(block);
    block = ak_alloc(40);
    ak_free(block);
    ak_free(hidden(block));
    char *large = ak_alloc(100);
    ak_free_sized(large, 99);
    return ak_fault_count() == 3 ? 0 : 1;
}

/* Run by the case guard/json with ALLOKIT_REPORT=json and json:path; the lines, where @POLICY@ is the policy: */
/* LINE {"fault":"overflow","policy":"@POLICY@","operation":"free","block":"0xADDR","size":24,"offset":24,"over_bytes":3,"allocated":{"line":5,"file":"json.c","function":"main"},"now":{"line":7,"file":"json.c","function":"main"},"process":@N@,"thread":@N@} */
/* LINE {"fault":"double free","policy":"@POLICY@","operation":"free","block":"0xADDR","size":40,"offset":0,"allocated":{"line":8,"file":"json.c","function":"main"},"freed":{"line":9,"file":"json.c","function":"main"},"now":{"line":10,"file":"json.c","function":"main"},"process":@N@,"thread":@N@} */
/* LINE {"fault":"size mismatch","policy":"@POLICY@","operation":"free","block":"0xADDR","size":100,"offset":0,"told_size":99,"allocated":{"line":11,"file":"json.c","function":"main"},"now":{"line":12,"file":"json.c","function":"main"},"process":@N@,"thread":@N@} */
