/*
 * allokit/track.h - included by alloc.h under AK_TRACK: each call passes a static record of its file, line, function.
 *
 * The function-like macros leave the functions themselves reachable: (ak_alloc)(n) and &ak_alloc are the plain ones.
 * A wrapper macro (#define vex_alloc(n) ak_alloc(n)) reports the line of its user, since __LINE__ is where the
 * outermost macro is used.
 */
#ifndef ALLOKIT_TRACK_H
#define ALLOKIT_TRACK_H

#if defined(__cplusplus)
/* A captureless lambda owns the record, so that calls work outside functions too (initialisers of globals). The name
 * of the function comes as an argument: inside the lambda it would be "operator()". */
static inline ak_site_t *ak_site_named_(ak_site_t *site, const char *function) noexcept {
    if (__atomic_load_n(&site->id, __ATOMIC_RELAXED) == 0) __atomic_store_n(&site->function, function, __ATOMIC_RELAXED);
    return site;
}
#define AK_SITE_                                                                                                       \
    ([](const char *ak_function_) noexcept -> ak_site_t * {                                                            \
        static ak_site_t ak_site_ = {__FILE__, nullptr, __LINE__, 0};                                                  \
        return ak_site_named_(&ak_site_, ak_function_);                                                                \
    }(__builtin_FUNCTION()))
#elif defined(__GNUC__) || defined(__clang__)
#define AK_SITE_                                                                                                       \
    __extension__({                                                                                                    \
        static ak_site_t ak_site_ = {__FILE__, __func__, __LINE__, 0};                                                 \
        &ak_site_;                                                                                                     \
    })
#endif

#if defined(AK_SITE_)
#define ak_free(ptr) ak_free_site((ptr), AK_SITE_)
#define ak_free_sized(ptr, size) ak_free_sized_site((ptr), (size), AK_SITE_)
#define ak_alloc(size) ak_alloc_site((size), AK_SITE_)
#define ak_calloc(count, size) ak_calloc_site((count), (size), AK_SITE_)
#define ak_calloc_aligned(count, size, alignment) ak_calloc_aligned_site((count), (size), (alignment), AK_SITE_)
#define ak_alloc_aligned(size, alignment) ak_alloc_aligned_site((size), (alignment), AK_SITE_)
#define ak_realloc(ptr, size) ak_realloc_site((ptr), (size), AK_SITE_)
#define ak_reallocarray(ptr, count, size) ak_reallocarray_site((ptr), (count), (size), AK_SITE_)
#define ak_reallocarray_aligned(ptr, count, size, alignment)                                                           \
    ak_reallocarray_aligned_site((ptr), (count), (size), (alignment), AK_SITE_)
#define ak_strdup(s) ak_strdup_site((s), AK_SITE_)
#define ak_strndup(s, n) ak_strndup_site((s), (n), AK_SITE_)
#define ak_memdup(p, n) ak_memdup_site((p), (n), AK_SITE_)
#define ak_usable_size(ptr) ak_usable_size_site((ptr), AK_SITE_)
#else
/* No statement expressions: file and line, without the function. */
#define ak_free(ptr) ak_free_at((ptr), __FILE__, __LINE__)
#define ak_free_sized(ptr, size) ak_free_sized_at((ptr), (size), __FILE__, __LINE__)
#define ak_alloc(size) ak_alloc_at((size), __FILE__, __LINE__)
#define ak_calloc(count, size) ak_calloc_at((count), (size), __FILE__, __LINE__)
#define ak_calloc_aligned(count, size, alignment) ak_calloc_aligned_at((count), (size), (alignment), __FILE__, __LINE__)
#define ak_alloc_aligned(size, alignment) ak_alloc_aligned_at((size), (alignment), __FILE__, __LINE__)
#define ak_realloc(ptr, size) ak_realloc_at((ptr), (size), __FILE__, __LINE__)
#define ak_reallocarray(ptr, count, size) ak_reallocarray_at((ptr), (count), (size), __FILE__, __LINE__)
#define ak_reallocarray_aligned(ptr, count, size, alignment)                                                           \
    ak_reallocarray_aligned_at((ptr), (count), (size), (alignment), __FILE__, __LINE__)
#define ak_strdup(s) ak_strdup_at((s), __FILE__, __LINE__)
#define ak_strndup(s, n) ak_strndup_at((s), (n), __FILE__, __LINE__)
#define ak_memdup(p, n) ak_memdup_at((p), (n), __FILE__, __LINE__)
#define ak_usable_size(ptr) ak_usable_size_at((ptr), __FILE__, __LINE__)
#endif

#endif /* ALLOKIT_TRACK_H */
