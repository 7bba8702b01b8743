/*
 * alloc_override.h - moves an unmodified C or C++ source file onto Allokit:
 *
 *     cc -include alloc_override.h -c their_file.c            (and link one liballokit_<backend>)
 *     cc -DAK_TRACK -include alloc_override.h -c their_file.c (the same, each call with its file and line)
 *
 * What is mapped: malloc, calloc, realloc, reallocarray, free, free_sized, free_aligned_sized, strdup, strndup, wcsdup,
 * aligned_alloc, posix_memalign, memalign, valloc, pvalloc, malloc_usable_size.
 *
 * How. Without AK_TRACK the compiler renames the symbols (#pragma redefine_extname), so that every use is mapped: a call,
 * (malloc)(n), a pointer in a table, std::malloc. Members such as obj->free(p) and locals of these names stay what they
 * are. In C nothing is included ahead of the source, so its own _GNU_SOURCE and the like work as ever.
 * With AK_TRACK calls become macros over alloc.h that pass the caller's file, line and function; pointers and (malloc)(n)
 * are still mapped by symbol, and known by their return address. Two limits come with the macros:
 *   - a call through a member of one of these names, obj->free(p), and a declaration or method `free(int x)` do not
 *     compile. Add -DAK_OVERRIDE_NO_SITES for that file: mapped by symbol only, attributed by return address;
 *   - in C the system headers come first, with _GNU_SOURCE unless the command line has a feature macro of its own: one
 *     that the source defines is then too late.
 *
 * What to know:
 *   - realloc(p, 0) frees p and returns NULL (as glibc and Lua do, musl and the BSDs do not); size 0 elsewhere gives a
 *     unique block that must be freed.
 *   - A block that libc itself allocated must go back to libc: ak_libc_free(p). That is what getline, getdelim, asprintf,
 *     vasprintf, realpath(x, NULL), getcwd(NULL, 0), open_memstream and scandir give.
 *   - Every file that frees a block of another must be compiled the same way; operator new and delete are not mapped.
 *   - A file that defines one of these functions itself is to be compiled without this header.
 *   - To use it only in part of a file is not possible: it must come before every other header.
 */
#ifndef ALLOKIT_ALLOC_OVERRIDE_H
#define ALLOKIT_ALLOC_OVERRIDE_H

#if !defined(__PRAGMA_REDEFINE_EXTNAME)
#error "alloc_override.h needs GCC or Clang (#pragma redefine_extname)"
#endif
/* A library header: its inline functions are judged by its own tests, not by the warnings of the source. */
#pragma GCC system_header

#if defined(AK_TRACK) && !defined(AK_OVERRIDE_NO_SITES)
#define AK_OVERRIDE_SITES_ 1
#endif

/* ---- the symbols ------------------------------------------------------------------------------------------------ */

#pragma redefine_extname malloc ak_alloc
#pragma redefine_extname calloc ak_calloc
#pragma redefine_extname realloc ak_realloc
#pragma redefine_extname reallocarray ak_reallocarray
#pragma redefine_extname free ak_free
#pragma redefine_extname free_sized ak_free_sized
#pragma redefine_extname strdup ak_strdup
#pragma redefine_extname strndup ak_strndup
#pragma redefine_extname malloc_usable_size ak_usable_size

#if defined(__cplusplus)
#define AK_OVERRIDE_C_ extern "C"
#define AK_OVERRIDE_NOEXCEPT_ noexcept
#else
#define AK_OVERRIDE_C_ extern
#define AK_OVERRIDE_NOEXCEPT_
#endif
#if defined(__MACH__)
#define AK_OVERRIDE_SYMBOL_(name) __asm__("_" name)
#else
#define AK_OVERRIDE_SYMBOL_(name) __asm__(name)
#endif

/* Frees a block that libc allocated: what getline or asprintf gave. NULL is allowed. */
AK_OVERRIDE_C_ void ak_libc_free(void *ptr) AK_OVERRIDE_SYMBOL_("free");

/* The library under names of our own: no attribute then pairs them with ak_free, for the source calls free. */
AK_OVERRIDE_C_ void *ak_override_aligned_(__SIZE_TYPE__ size, __SIZE_TYPE__ alignment)
    AK_OVERRIDE_SYMBOL_("ak_alloc_aligned");
AK_OVERRIDE_C_ void *ak_override_memdup_(const void *p, __SIZE_TYPE__ size) AK_OVERRIDE_SYMBOL_("ak_memdup");
AK_OVERRIDE_C_ void ak_override_free_sized_(void *ptr, __SIZE_TYPE__ size) AK_OVERRIDE_SYMBOL_("ak_free_sized");
AK_OVERRIDE_C_ int ak_override_page_(void) AK_OVERRIDE_SYMBOL_("getpagesize");

/* GCC's C front end turns realloc(NULL, n) into malloc(n), and malloc with memset into calloc, by their old symbols. It
 * does so to functions that it knows by name, so these three get names that it does not know. __malloc__ is chosen
 * because it is also the other spelling of the attribute: __attribute__((malloc)) stays right. */
#if !defined(__cplusplus) && !defined(__clang__)
extern void *__malloc__(__SIZE_TYPE__ size) AK_OVERRIDE_SYMBOL_("ak_alloc");
extern void *ak_override_calloc_(__SIZE_TYPE__ count, __SIZE_TYPE__ size) AK_OVERRIDE_SYMBOL_("ak_calloc");
extern void *ak_override_realloc_(void *ptr, __SIZE_TYPE__ size) AK_OVERRIDE_SYMBOL_("ak_realloc");
#define malloc __malloc__
#define calloc ak_override_calloc_
#define realloc ak_override_realloc_
#define AK_OVERRIDE_RENAMED_ 1
#endif

/* ---- the headers that declare the names ------------------------------------------------------------------------- */

/* C++ compilers define _GNU_SOURCE themselves, and <cstdlib> undefines macros of these names: there they come first. */
#if defined(__cplusplus)
#include <cstdlib>
#include <cstring>
#include <cwchar>
#elif defined(AK_OVERRIDE_SITES_)
#if !defined(_GNU_SOURCE) && !defined(_DEFAULT_SOURCE) && !defined(_XOPEN_SOURCE) && !defined(_POSIX_C_SOURCE)
#define _GNU_SOURCE
#define AK_OVERRIDE_GNU_
#endif
#include <stdlib.h>
#include <string.h>
#include <wchar.h>
#endif
#if defined(__cplusplus) || defined(AK_OVERRIDE_SITES_)
#if defined(__has_include)
#if __has_include(<malloc.h>)
#include <malloc.h>
#endif
#endif
#endif
#if defined(AK_OVERRIDE_SITES_)
#include "alloc.h"
#endif
#if defined(AK_OVERRIDE_GNU_)
#undef _GNU_SOURCE
#undef AK_OVERRIDE_GNU_
#endif

/* ---- the functions whose arguments differ from the library's ---------------------------------------------------- */

static inline void *ak_override_aligned_alloc_(__SIZE_TYPE__ alignment, __SIZE_TYPE__ size) AK_OVERRIDE_NOEXCEPT_ {
    return ak_override_aligned_(size, alignment);
}

/* memalign takes any alignment, and rounds it up to a power of two as glibc does. */
static inline __SIZE_TYPE__ ak_override_power_of_two_(__SIZE_TYPE__ n) AK_OVERRIDE_NOEXCEPT_ {
    __SIZE_TYPE__ power = 1;
    while (power < n && power << 1 != 0) power <<= 1;
    return power;
}

static inline void *ak_override_memalign_(__SIZE_TYPE__ alignment, __SIZE_TYPE__ size) AK_OVERRIDE_NOEXCEPT_ {
    return ak_override_aligned_(size, ak_override_power_of_two_(alignment));
}

static inline void *ak_override_valloc_(__SIZE_TYPE__ size) AK_OVERRIDE_NOEXCEPT_ {
    return ak_override_aligned_(size, (__SIZE_TYPE__)ak_override_page_());
}

/* Rounded up to whole pages, one at least; a size that wraps is passed on and refused. */
static inline __SIZE_TYPE__ ak_override_pages_(__SIZE_TYPE__ size) AK_OVERRIDE_NOEXCEPT_ {
    __SIZE_TYPE__ mask = (__SIZE_TYPE__)ak_override_page_() - 1;
    if (size == 0) return mask + 1;
    return size + mask < size ? size : (size + mask) & ~mask;
}

static inline void *ak_override_pvalloc_(__SIZE_TYPE__ size) AK_OVERRIDE_NOEXCEPT_ {
    return ak_override_aligned_(ak_override_pages_(size), (__SIZE_TYPE__)ak_override_page_());
}

/* 22 and 12 are EINVAL and ENOMEM wherever this header works; <errno.h> must not come before the source. */
static inline int ak_override_posix_memalign_(void **out, __SIZE_TYPE__ alignment,
                                              __SIZE_TYPE__ size) AK_OVERRIDE_NOEXCEPT_ {
    void *block;
    if (alignment < sizeof(void *) || (alignment & (alignment - 1)) != 0) return 22;
    block = ak_override_aligned_(size, alignment);
    if (block == (void *)0) return 12;
    *out = block;
    return 0;
}

static inline void ak_override_free_aligned_sized_(void *ptr, __SIZE_TYPE__ alignment,
                                                   __SIZE_TYPE__ size) AK_OVERRIDE_NOEXCEPT_ {
    (void)alignment;
    ak_override_free_sized_(ptr, size);
}

#if defined(__cplusplus)
typedef wchar_t ak_override_wchar_;
#else
typedef __WCHAR_TYPE__ ak_override_wchar_;
#endif
static inline __SIZE_TYPE__ ak_override_wide_bytes_(const ak_override_wchar_ *s) AK_OVERRIDE_NOEXCEPT_ {
    const ak_override_wchar_ *end = s;
    while (*end != 0) end++;
    return (__SIZE_TYPE__)(end - s + 1) * sizeof(ak_override_wchar_);
}

static inline ak_override_wchar_ *ak_override_wcsdup_(const ak_override_wchar_ *s) AK_OVERRIDE_NOEXCEPT_ {
    return (ak_override_wchar_ *)ak_override_memdup_(s, ak_override_wide_bytes_(s));
}

#define aligned_alloc ak_override_aligned_alloc_
#define memalign ak_override_memalign_
#define valloc ak_override_valloc_
#define pvalloc ak_override_pvalloc_
#define posix_memalign ak_override_posix_memalign_
#define free_aligned_sized ak_override_free_aligned_sized_
#define wcsdup ak_override_wcsdup_

/* std::aligned_alloc and, under AK_TRACK, std::malloc: the macro leaves std:: before the new name. */
#if defined(__cplusplus)
namespace std {
using ::ak_override_aligned_alloc_;
#if defined(AK_OVERRIDE_SITES_)
using ::ak_alloc_aligned_site;
using ::ak_alloc_site;
using ::ak_calloc_site;
using ::ak_free_site;
using ::ak_realloc_site;
#endif
} // namespace std
#endif

/* ---- calls that pass their site --------------------------------------------------------------------------------- */

#if defined(AK_OVERRIDE_SITES_)

/* alloc.h pairs ak_alloc_site with ak_free_site; a call that stayed (free)(p) is right as well, GCC cannot know it. */
#if defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 11
#pragma GCC diagnostic ignored "-Wmismatched-dealloc"
#endif

static inline int ak_override_posix_memalign_site_(void **out, size_t alignment, size_t size,
                                                   ak_site_t *site) AK_OVERRIDE_NOEXCEPT_ {
    void *block;
    if (alignment < sizeof(void *) || (alignment & (alignment - 1)) != 0) return 22;
    block = ak_alloc_aligned_site(size, alignment, site);
    if (block == NULL) return 12;
    *out = block;
    return 0;
}

static inline wchar_t *ak_override_wcsdup_site_(const wchar_t *s, ak_site_t *site) AK_OVERRIDE_NOEXCEPT_ {
    return (wchar_t *)ak_memdup_site(s, ak_override_wide_bytes_(s), site);
}

/* The last argument is variadic, so that a comma in it (f<a, b>() in C++) does no harm. */
#if defined(AK_OVERRIDE_RENAMED_)
/* Other headers still write __attribute__((__malloc__(free, 1))): two arguments stay the attribute, one is a call. */
#define AK_OVERRIDE_PICK_(first, second, choice, ...) choice
#define AK_OVERRIDE_ATTRIBUTE_(...) __malloc__(__VA_ARGS__)
#define AK_OVERRIDE_CALL_(...) ak_alloc((__VA_ARGS__))
#define __malloc__(...)                                                                                                \
    AK_OVERRIDE_PICK_(__VA_ARGS__, AK_OVERRIDE_ATTRIBUTE_, AK_OVERRIDE_CALL_, 0)(__VA_ARGS__)
#define ak_override_calloc_(count, ...) ak_calloc((count), (__VA_ARGS__))
#define ak_override_realloc_(ptr, ...) ak_realloc((ptr), (__VA_ARGS__))
#else
#define malloc(...) ak_alloc((__VA_ARGS__))
#define calloc(count, ...) ak_calloc((count), (__VA_ARGS__))
#define realloc(ptr, ...) ak_realloc((ptr), (__VA_ARGS__))
#endif
#define free(...) ak_free((__VA_ARGS__))
#define free_sized(ptr, ...) ak_free_sized((ptr), (__VA_ARGS__))
#undef strdup
#undef strndup
#define strdup(...) ak_strdup((__VA_ARGS__))
#define strndup(s, ...) ak_strndup((s), (__VA_ARGS__))
#define reallocarray(ptr, count, ...) ak_reallocarray((ptr), (count), (__VA_ARGS__))
#define ak_override_aligned_alloc_(alignment, ...) ak_alloc_aligned((__VA_ARGS__), (alignment))
#define ak_override_memalign_(alignment, ...) ak_alloc_aligned((__VA_ARGS__), ak_override_power_of_two_(alignment))
#define ak_override_valloc_(...) ak_alloc_aligned((__VA_ARGS__), (size_t)ak_override_page_())
#define ak_override_pvalloc_(...) ak_alloc_aligned(ak_override_pages_(__VA_ARGS__), (size_t)ak_override_page_())
#define ak_override_posix_memalign_(out, alignment, ...)                                                               \
    ak_override_posix_memalign_site_((out), (alignment), (__VA_ARGS__), AK_SITE_)
#define ak_override_free_aligned_sized_(ptr, alignment, ...) ((void)(alignment), ak_free_sized((ptr), (__VA_ARGS__)))
#define ak_override_wcsdup_(...) ak_override_wcsdup_site_((__VA_ARGS__), AK_SITE_)

#endif /* AK_OVERRIDE_SITES_ */

#undef AK_OVERRIDE_C_
#undef AK_OVERRIDE_SYMBOL_

#endif /* ALLOKIT_ALLOC_OVERRIDE_H */
