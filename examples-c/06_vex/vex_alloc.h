/*
 * vex_alloc.h - all of Vex's memory goes through these macros. The only file of the runtime that knows its allocator.
 *
 * They are macros, not functions, for one reason: under AK_TRACK the ak_ calls inside record __FILE__ and __LINE__, and
 * in a macro those are the place of the *user* of vex_alloc. A wrapper function would report its own line for everything.
 */
#ifndef VEX_ALLOC_H
#define VEX_ALLOC_H

#include "alloc.h"

#define vex_alloc(size) ak_alloc(size)
#define vex_realloc(ptr, size) ak_realloc((ptr), (size))
#define vex_free(ptr) ak_free(ptr)

/* Typed forms: count the elements, check the product; vex_new and vex_array zero what they give. */
#define vex_new(T) AK_NEW(T)
#define vex_array(T, n) AK_ARRAY(T, n)
#define vex_resize(ptr, T, n) AK_RESIZE(ptr, T, n)

#endif /* VEX_ALLOC_H */
