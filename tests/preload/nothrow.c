/* nothrow.c - a C program that calls operator new by its mangled name, without a C++ library: its failure is named. */
#include <stddef.h>
#include <stdint.h>

void *_Znwm(size_t size) __attribute__((weak));
void *_ZnwmRKSt9nothrow_t(size_t size, const void *tag) __attribute__((weak));
void _ZdlPv(void *block) __attribute__((weak));

int main(int argc, char **argv) {
    (void)argv;
    if (_Znwm == NULL || _ZnwmRKSt9nothrow_t == NULL || _ZdlPv == NULL) return 3;
    _ZdlPv(_Znwm(100));
    volatile size_t too_large = (size_t)PTRDIFF_MAX - 10000;
    if (_ZnwmRKSt9nothrow_t(too_large, NULL) != NULL) return 4;
    if (argc == 1) _Znwm(too_large);
    return 0;
}
