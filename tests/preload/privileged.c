/* privileged.c - linked with the library itself; says whether the system takes it for set-user-id, and allocates. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>

int main(void) {
    char *volatile text = malloc(100);
    if (text == NULL) return 1;
    strcpy(text, getauxval(AT_SECURE) != 0 ? "secure" : "ordinary");
    puts(text);
    return 0;
}
