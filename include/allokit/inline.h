/*
 * inline.h - the fast path of the native backend in the caller. alloc.h includes it when AK_INLINE_NATIVE is defined,
 * which the CMake target of the static native library does; define AK_NO_INLINE to have plain calls again.
 *
 * With a size that is a constant, ak_alloc pops a block from the thread's list and ak_free_sized pushes one onto its bin, without a
 * call; ak_free looks the block's page up first. Whatever is out of the ordinary (an empty list, another thread's block, a
 * large one, tracking in force) is the library's function, which decides everything; so both may be mixed freely.
 *
 * What this file knows of the library is one layout: ak_inline_heap_t and the size classes. Its number is part of the
 * symbol that it refers to, so a program whose header and library differ, or that is linked with a shared library, does
 * not link, and the missing symbol's name says what is wanted. The static libraries of the other backends have the symbol
 * too, with a heap that is always empty: an object that was compiled for native may be linked with any of them.
 */
#ifndef ALLOKIT_INLINE_H
#define ALLOKIT_INLINE_H

#if !(defined(__GNUC__) && defined(__ELF__) && (defined(__x86_64__) || defined(__aarch64__)))
#error "allokit: AK_INLINE_NATIVE is for GCC and Clang on x86-64 and aarch64 ELF systems; define AK_NO_INLINE"
#endif

#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A free block holds the next one. The block was of any type before: these accesses alias all. */
typedef struct __attribute__((__may_alias__)) ak_inline_block {
    struct ak_inline_block *next;
} ak_inline_block_t;

typedef struct ak_inline_bin {
    ak_inline_block_t *head;
    int32_t room; /* how many more frees until the library looks at the bin; 0 where nothing may be pushed */
    uint32_t aside;
} ak_inline_bin_t;

/* AK_INLINE_END_: all bins of a heap lie in so many bytes from its start. */
enum { AK_INLINE_BINS_ = 73, AK_INLINE_MAX_ = 32768, AK_INLINE_PAGE_SHIFT_ = 16, AK_INLINE_END_ = 258048 };

typedef struct ak_inline_heap {
    ak_inline_bin_t bins[AK_INLINE_BINS_];
    const uintptr_t *pages; /* which bin a page's blocks belong to, by address; NULL where nothing may be pushed */
    ak_inline_block_t *heads[AK_INLINE_BINS_]; /* what allocations pop from */
} ak_inline_heap_t;

/* This thread's heap, or an empty one. */
extern __thread ak_inline_heap_t *ak_inline_heap_
    __asm__("ak_inline_2_needs_a_static_library_of_this_header");

#ifdef __cplusplus
}
#endif

/* The class of a size up to AK_INLINE_MAX_: steps of 16 up to 128, then eight to a doubling. */
static __inline__ __attribute__((__always_inline__, __unused__)) size_t ak_inline_class_(size_t size)
{
    size_t last = size - 1;
    unsigned log;
    if (size <= 128) return size == 0 ? 1 : (size + 15) / 16;
    log = 63u - (unsigned)__builtin_clzll(last);
    return (log - 7) * 8 + ((last >> (log - 3)) & 7) + 9;
}

/* A block of the size's class, or NULL when there is none at hand. */
static __inline__ __attribute__((__always_inline__, __unused__)) void *ak_inline_pop_(size_t size)
{
    ak_inline_block_t **list = &ak_inline_heap_->heads[ak_inline_class_(size)];
    ak_inline_block_t *block = *list;
    if (__builtin_expect(block != NULL, 1)) *list = block->next;
    return block;
}

static __inline__ __attribute__((__always_inline__, __unused__)) void ak_inline_push_(ak_inline_bin_t *bin, void *ptr)
{
    ak_inline_block_t *block;
    /* What the compiler knows of the block's size is over: there is room for `next`, whatever was asked for. */
    __asm__("" : "+r"(ptr));
    block = (ak_inline_block_t *)ptr;
    block->next = bin->head;
    /* In this order: the child of a fork in between finds a whole list. */
    __atomic_signal_fence(__ATOMIC_RELEASE);
    bin->head = block;
}

AK_NODISCARD static __inline__ __attribute__((__always_inline__, __unused__)) void *ak_inline_alloc_(size_t size)
{
    if (__builtin_constant_p(size) && size <= AK_INLINE_MAX_) {
        void *block = ak_inline_pop_(size);
        if (__builtin_expect(block != NULL, 1)) return block;
    }
    return (ak_alloc)(size);
}

AK_NODISCARD static __inline__ __attribute__((__always_inline__, __unused__)) void *ak_inline_calloc_(size_t count,
                                                                                                     size_t size)
{
    if (__builtin_constant_p(count) && __builtin_constant_p(size) && size <= 1024 && count <= 1024 &&
        count * size <= 1024) {
        void *block = ak_inline_pop_(count * size);
        if (__builtin_expect(block != NULL, 1)) return memset(block, 0, count * size);
    }
    return (ak_calloc)(count, size);
}

static __inline__ __attribute__((__always_inline__, __unused__)) void ak_inline_free_(void *ptr)
{
    const ak_inline_heap_t *heap = ak_inline_heap_;
    if (__builtin_expect(heap->pages != NULL, 1)) {
        uintptr_t word = heap->pages[(uintptr_t)ptr >> AK_INLINE_PAGE_SHIFT_];
        if (__builtin_expect((word ^ (uintptr_t)heap) < AK_INLINE_END_, 1)) {
            ak_inline_bin_t *bin = (ak_inline_bin_t *)word;
            if (__builtin_expect(--bin->room >= 0, 1)) {
                ak_inline_push_(bin, ptr);
                return;
            }
        }
    }
    (ak_free)(ptr);
}

/* A block of another thread's is pushed as well: it is of the same class, and goes home when the library empties bins.
 * The room is looked at before it is written: the empty heap is everybody's. */
static __inline__ __attribute__((__always_inline__, __unused__)) void ak_inline_free_sized_(void *ptr, size_t size)
{
    if (__builtin_constant_p(size) && size <= AK_INLINE_MAX_) {
        ak_inline_bin_t *bin = &ak_inline_heap_->bins[ak_inline_class_(size)];
        if (ptr == NULL) return;
        if (__builtin_expect(bin->room > 0, 1)) {
            bin->room--;
            ak_inline_push_(bin, ptr);
            return;
        }
    }
    (ak_free_sized)(ptr, size);
}

#define ak_alloc(size) ak_inline_alloc_(size)
#define ak_calloc(count, size) ak_inline_calloc_(count, size)
#define ak_free(ptr) ak_inline_free_(ptr)
#define ak_free_sized(ptr, size) ak_inline_free_sized_(ptr, size)

#endif /* ALLOKIT_INLINE_H */
