/*
 * allokit/arena.h - memory by lifetime and by place; alloc.h includes it.
 *
 *   arena    blocks that all end together, or back to a mark; a pointer that is bumped
 *   scratch  a thread's own arenas for temporaries
 *   region   blocks freed one by one inside a fixed buffer, in constant time, with no system behind it
 *   pool     objects of one size, taken and given back in any order
 *   stack    blocks that end in the reverse order of their beginning, with marks
 *
 * The rules of alloc.h hold: alignment 16 at least; size 0 gives a pointer of its own; failure gives NULL with ENOMEM (no
 * memory, a limit, an impossible size) or EINVAL (an alignment that is none, a buffer too small, a NULL owner) and has
 * changed nothing. Misuse that is noticed is a fault and follows the policy (ak_policy_set): it is reported with the place
 * where the arena was made and the place of the call and the program is aborted; or reported, or only counted, and then
 * the call does nothing and gives NULL or false with EINVAL.
 *
 * Each of them may be used by any thread, by one at a time. Texts in options (names) and the file names that AK_TRACK passes
 * are not copied. Option structs may be NULL; otherwise set struct_size to sizeof, and leave at 0 what shall be as usual.
 */
#ifndef ALLOKIT_ARENA_H
#define ALLOKIT_ARENA_H

#include <stdarg.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__) || defined(__clang__)
#define AK_PRINTF_(text, from) __attribute__((__format__(__printf__, text, from)))
#define AK_INLINE_ static __inline__ __attribute__((__always_inline__, __unused__))
#define AK_LIKELY_(condition) __builtin_expect(!!(condition), 1)
#else
#define AK_PRINTF_(text, from)
#define AK_INLINE_ static inline
#define AK_LIKELY_(condition) (condition)
#endif

/* ---- arenas ----------------------------------------------------------------------------------------------------- */

typedef struct ak_arena ak_arena_t;

/* Called when an arena has taken a chunk of so many bytes. */
typedef void (*ak_arena_grow_fn)(ak_arena_t *arena, size_t bytes, void *arg);

enum {
    AK_ARENA_FIXED = 1, /* the caller's buffer is the only memory */
    AK_ARENA_GUARD = 2  /* what is free is filled with 0xDD, and looked at when it is handed out again */
};

typedef struct ak_arena_opts {
    size_t struct_size;
    const char *name;         /* for reports */
    size_t first_chunk;       /* bytes; 4 KiB */
    size_t largest_chunk;     /* bytes; 64 KiB; a larger block has a chunk of its own */
    size_t alignment;         /* of every block; 16 */
    size_t limit;             /* the most bytes taken, children included; none */
    ak_arena_t *parent;       /* the arena that this one ends with */
    void *buffer;             /* the first memory, of any alignment; the arena itself lies in it too */
    size_t buffer_size;
    uint32_t flags;
    ak_arena_grow_fn on_grow;
    void *arg;                /* for on_grow */
    ak_heap_t *heap;          /* where chunks come from, and children's; it cannot be reset or destroyed before. Not with
                                 parent or AK_ARENA_FIXED */
} ak_arena_opts_t;

/* A point to go back to. Plain data: copy it, drop it. */
typedef struct ak_arena_mark_t {
    uintptr_t ak_words[6];
} ak_arena_mark_t;

typedef struct ak_arena_stats_t {
    size_t struct_size;
    size_t used_bytes;     /* what blocks occupy, rounding included */
    size_t reserved_bytes; /* taken from the allocator or the buffer */
    size_t waste_bytes;    /* what no block can have before a reset: headers, ends of chunks */
    size_t peak_bytes;     /* the most that used_bytes has been */
    size_t chunk_count;
} ak_arena_stats_t;

AK_NODISCARD AK_API ak_arena_t *ak_arena_new(const ak_arena_opts_t *opts);
AK_NODISCARD AK_API ak_arena_t *ak_arena_new_at(const ak_arena_opts_t *opts, const char *file, uint32_t line);
/* An arena that ends with `a`, at the latest: by ak_arena_destroy, reset or clear of `a`, or when `a` is rewound to a mark
 * from before. Its memory counts against both limits. If `a` has a buffer and nothing else, the child lies in one block of
 * it, with room for opts->first_chunk bytes. */
AK_NODISCARD AK_API ak_arena_t *ak_arena_child(ak_arena_t *a, const ak_arena_opts_t *opts);
AK_NODISCARD AK_API ak_arena_t *ak_arena_child_at(ak_arena_t *a, const ak_arena_opts_t *opts, const char *file,
                                                  uint32_t line);
/* Ends the arena, its blocks and its children. NULL is allowed. */
AK_API void ak_arena_destroy(ak_arena_t *a);
AK_API void ak_arena_destroy_at(ak_arena_t *a, const char *file, uint32_t line);

AK_NODISCARD AK_API void *ak_arena_alloc(ak_arena_t *a, size_t size) AK_ATTR_((malloc)) AK_SIZE_(2);
AK_NODISCARD AK_API void *ak_arena_alloc_aligned(ak_arena_t *a, size_t size, size_t alignment) AK_ATTR_((malloc))
    AK_SIZE_(2) AK_ALIGN_(3);
AK_NODISCARD AK_API void *ak_arena_calloc(ak_arena_t *a, size_t count, size_t size) AK_ATTR_((malloc))
    AK_SIZE2_(2, 3);
/* Resizes a block of old_size bytes: in place if it is the newest one or has a chunk of its own, else by copying. p NULL
 * allocates; new_size 0 gives the block up and returns NULL. The alignment is the arena's. */
AK_NODISCARD AK_API void *ak_arena_realloc(ak_arena_t *a, void *p, size_t old_size, size_t new_size) AK_SIZE_(4);
AK_NODISCARD AK_API void *ak_arena_realloc_at(ak_arena_t *a, void *p, size_t old_size, size_t new_size,
                                              const char *file, uint32_t line) AK_SIZE_(4);
AK_NODISCARD AK_API char *ak_arena_strdup(ak_arena_t *a, const char *s) AK_ATTR_((malloc));
AK_NODISCARD AK_API char *ak_arena_strndup(ak_arena_t *a, const char *s, size_t n) AK_ATTR_((malloc));
AK_NODISCARD AK_API void *ak_arena_memdup(ak_arena_t *a, const void *p, size_t n) AK_ATTR_((malloc)) AK_SIZE_(3);
/* The text, written in place: formatted once when it fits the chunk, measured and formatted when it does not. */
AK_NODISCARD AK_API char *ak_arena_vsprintf(ak_arena_t *a, const char *format, va_list arguments) AK_ATTR_((malloc))
    AK_PRINTF_(2, 0);

/* A mark never fails. It costs 16 bytes, where blocks came since the last mark. ak_arena_rewind ends all that is newer, keeps
 * the chunks, and may be called many times for one mark; false for a mark of another arena and one that has ended. */
AK_NODISCARD AK_API ak_arena_mark_t ak_arena_mark(ak_arena_t *a);
AK_API bool ak_arena_rewind(ak_arena_t *a, ak_arena_mark_t mark);
AK_API bool ak_arena_rewind_at(ak_arena_t *a, ak_arena_mark_t mark, const char *file, uint32_t line);
/* Ends all blocks and children. reset keeps every chunk and the size that the next one will have; clear keeps the first
 * chunk. */
AK_API void ak_arena_reset(ak_arena_t *a);
AK_API void ak_arena_clear(ak_arena_t *a);
/* Gives back the chunks that no block is in; how many bytes. */
AK_API size_t ak_arena_trim(ak_arena_t *a);
/* Whether p points into a block of the arena (not of a child). Takes as long as there are chunks. */
AK_NODISCARD AK_API bool ak_arena_owns(ak_arena_t *a, const void *p);
/* Fills at most st->struct_size bytes and sets it to the bytes filled. */
AK_API bool ak_arena_stats(ak_arena_t *a, ak_arena_stats_t *st);
/* The number of faults in the arena's records, and in a guarded one in its free memory; 0 when all is well. */
AK_NODISCARD AK_API size_t ak_arena_check(ak_arena_t *a);

/* What the inline allocation calls when next..end has no room. The number is that of the layout below: a program whose
 * header and library differ does not link. */
AK_NODISCARD AK_API void *ak_arena_more_2(ak_arena_t *a, size_t size) AK_ATTR_((malloc)) AK_SIZE_(2);

/* ---- scratch ---------------------------------------------------------------------------------------------------- */

/* A stretch of temporaries: allocate from `arena`. NULL when there was no memory (errno ENOMEM). */
typedef struct ak_scratch {
    ak_arena_t *arena;
    uintptr_t ak_words[2];
} ak_scratch_t;

/* Stretches nest, and each has an arena of its own: the arena that a caller wants the result in, its own stretch's too, is
 * never the one that ends here. */
AK_NODISCARD AK_API ak_scratch_t ak_scratch_begin(void);
/* Ends the stretch. One that is not the newest is a fault; it ends with all inside it. */
AK_API void ak_scratch_end(ak_scratch_t s);
AK_API void ak_scratch_end_at(ak_scratch_t s, const char *file, uint32_t line);

/* ---- regions ---------------------------------------------------------------------------------------------------- */

typedef struct ak_region ak_region_t;

typedef struct ak_region_stats_t {
    size_t struct_size;
    size_t capacity_bytes;     /* for blocks and their headers of 16 bytes */
    size_t used_bytes;
    size_t free_bytes;
    size_t peak_bytes;
    size_t largest_free_bytes; /* what one more block can have */
    size_t block_count;
} ak_region_stats_t;

/* In a buffer of the caller's, of any alignment: needs no other memory. */
AK_NODISCARD AK_API ak_region_t *ak_region_from_buffer(void *mem, size_t size);
AK_NODISCARD AK_API ak_region_t *ak_region_from_buffer_at(void *mem, size_t size, const char *file, uint32_t line);
/* With room for `size` bytes of blocks and headers. */
AK_NODISCARD AK_API ak_region_t *ak_region_new(size_t size);
AK_NODISCARD AK_API ak_region_t *ak_region_new_at(size_t size, const char *file, uint32_t line);
/* In a block of another region; ends with it, also when that is reset. */
AK_NODISCARD AK_API ak_region_t *ak_region_child(ak_region_t *r, size_t size);
AK_NODISCARD AK_API ak_region_t *ak_region_child_at(ak_region_t *r, size_t size, const char *file, uint32_t line);
AK_API void ak_region_destroy(ak_region_t *r);
AK_API void ak_region_destroy_at(ak_region_t *r, const char *file, uint32_t line);

AK_NODISCARD AK_API void *ak_region_alloc(ak_region_t *r, size_t size) AK_ATTR_((malloc)) AK_SIZE_(2);
AK_NODISCARD AK_API void *ak_region_alloc_aligned(ak_region_t *r, size_t size, size_t alignment) AK_ATTR_((malloc))
    AK_SIZE_(2) AK_ALIGN_(3);
AK_NODISCARD AK_API void *ak_region_calloc(ak_region_t *r, size_t count, size_t size) AK_ATTR_((malloc))
    AK_SIZE2_(2, 3);
AK_NODISCARD AK_API void *ak_region_realloc(ak_region_t *r, void *p, size_t size) AK_SIZE_(3);
AK_NODISCARD AK_API void *ak_region_realloc_at(ak_region_t *r, void *p, size_t size, const char *file, uint32_t line)
    AK_SIZE_(3);
/* Frees a block of whichever region it is. NULL is allowed. */
AK_API void ak_region_free(void *p);
AK_API void ak_region_free_at(void *p, const char *file, uint32_t line);
AK_NODISCARD AK_API size_t ak_region_usable_size(void *p);
/* One block at the far end of the buffer, freed by ak_region_free; NULL with EBUSY while there is one. */
AK_NODISCARD AK_API void *ak_region_scratch(ak_region_t *r, size_t size) AK_ATTR_((malloc)) AK_SIZE_(2);
/* Ends all blocks; reset_zero also zeroes their memory. */
AK_API void ak_region_reset(ak_region_t *r);
AK_API void ak_region_reset_zero(ak_region_t *r);
AK_NODISCARD AK_API bool ak_region_owns(ak_region_t *r, const void *p);
/* The number of faults in the region's records. This, stats and the picture take as long as there are blocks. */
AK_NODISCARD AK_API size_t ak_region_check(ak_region_t *r);
AK_API bool ak_region_stats(ak_region_t *r, ak_region_stats_t *st);
/* A picture of the buffer, on stderr or through a writer: # in use, . free, + both. */
AK_API void ak_region_print(ak_region_t *r);
AK_API bool ak_region_write(ak_region_t *r, ak_write_fn write, void *arg);

/* ---- pools ------------------------------------------------------------------------------------------------------ */

typedef struct ak_pool ak_pool_t;

enum {
    AK_POOL_FIXED = 1, /* the caller's buffer is the only memory */
    AK_POOL_GUARD = 2  /* every give is looked at closely: pointers into the middle of an object are faults too */
};

typedef struct ak_pool_opts {
    size_t struct_size;
    const char *name;
    size_t alignment; /* of every object; 16 */
    size_t per_chunk; /* objects; chunks of 4 KiB, doubling to 64 KiB */
    size_t limit;     /* objects; none */
    void *buffer;     /* the first memory, of any alignment; the pool itself lies in it too */
    size_t buffer_size;
    uint32_t flags;
} ak_pool_opts_t;

AK_NODISCARD AK_API ak_pool_t *ak_pool_new(size_t object_size, const ak_pool_opts_t *opts);
AK_NODISCARD AK_API ak_pool_t *ak_pool_new_at(size_t object_size, const ak_pool_opts_t *opts, const char *file,
                                              uint32_t line);
AK_API void ak_pool_destroy(ak_pool_t *p);
AK_API void ak_pool_destroy_at(ak_pool_t *p, const char *file, uint32_t line);
/* An object, contents undefined. */
AK_NODISCARD AK_API void *ak_pool_take(ak_pool_t *p) AK_ATTR_((malloc));
/* Takes it back. NULL is allowed. Its first 16 bytes are overwritten. */
AK_API void ak_pool_give(ak_pool_t *p, void *object);
/* Takes all objects back; the chunks stay. */
AK_API void ak_pool_reset(ak_pool_t *p);
AK_NODISCARD AK_API size_t ak_pool_check(ak_pool_t *p);
/* What the inline functions call; numbered like ak_arena_more_2. */
AK_NODISCARD AK_API void *ak_pool_take_2(ak_pool_t *p) AK_ATTR_((malloc));
AK_API void ak_pool_give_1(ak_pool_t *p, void *object, const char *file, uint32_t line);

/* ---- stacks ----------------------------------------------------------------------------------------------------- */

typedef struct ak_stack ak_stack_t;

typedef struct ak_stack_opts {
    size_t struct_size;
    const char *name;
    size_t alignment; /* of every block; 16 */
    void *buffer;     /* `size` bytes in which the stack lies, of any alignment */
} ak_stack_opts_t;

typedef struct ak_stack_mark_t {
    uintptr_t ak_words[2];
    uint64_t ak_serial; /* 0: there was no room for the mark */
} ak_stack_mark_t;

/* Of `size` bytes, of which each block and each mark takes 16 for itself. */
AK_NODISCARD AK_API ak_stack_t *ak_stack_new(size_t size, const ak_stack_opts_t *opts);
AK_NODISCARD AK_API ak_stack_t *ak_stack_new_at(size_t size, const ak_stack_opts_t *opts, const char *file,
                                                uint32_t line);
AK_API void ak_stack_destroy(ak_stack_t *s);
AK_API void ak_stack_destroy_at(ak_stack_t *s, const char *file, uint32_t line);
AK_NODISCARD AK_API void *ak_stack_push(ak_stack_t *s, size_t size) AK_ATTR_((malloc)) AK_SIZE_(2);
/* Ends the newest block; every other pointer is a fault. NULL is allowed. */
AK_API bool ak_stack_pop(ak_stack_t *s, void *p);
AK_API bool ak_stack_pop_at(ak_stack_t *s, void *p, const char *file, uint32_t line);
/* release ends everything since the mark, and the mark; a mark that ended with an older one is a fault. */
AK_NODISCARD AK_API ak_stack_mark_t ak_stack_mark(ak_stack_t *s);
AK_API bool ak_stack_release(ak_stack_t *s, ak_stack_mark_t mark);
AK_API bool ak_stack_release_at(ak_stack_t *s, ak_stack_mark_t mark, const char *file, uint32_t line);
AK_NODISCARD AK_API size_t ak_stack_check(ak_stack_t *s);

#ifdef __cplusplus
} /* extern "C" */
#endif

/* ---- in the caller ---------------------------------------------------------------------------------------------- */

/* The text, as by sprintf. */
AK_NODISCARD AK_PRINTF_(2, 3) static inline char *ak_arena_sprintf(ak_arena_t *a, const char *format, ...)
{
    char *text;
    va_list arguments;
    va_start(arguments, format);
    text = ak_arena_vsprintf(a, format, arguments);
    va_end(arguments);
    return text;
}

/* The layout that the functions below share with the library, in static and shared libraries alike. */
/* Pointers to a type of their own: a store of the caller's into a block is then no store into the head, and in a loop the
 * compiler keeps `next` in a register. */
typedef struct ak_arena_head_ {
    struct ak_arena_byte_ *next;
    struct ak_arena_byte_ *end;
    uintptr_t wide;
} ak_arena_head_t_;

/* A size or an alignment up to this is added without a look at overflow. */
#define AK_ARENA_CONSTANT_ ((size_t)1 << 16)

typedef struct ak_pool_node_ {
    struct ak_pool_node_ *next;
    uintptr_t key;
} ak_pool_node_t_;

typedef struct ak_pool_head_ {
    ak_pool_node_t_ *free;
    uintptr_t low, span, key;
} ak_pool_head_t_;

AK_NODISCARD AK_INLINE_ void *ak_arena_alloc_inline_(ak_arena_t *a, size_t size)
{
    ak_arena_head_t_ *head = (ak_arena_head_t_ *)(void *)a;
    if (AK_LIKELY_(a != NULL)) {
        char *block = (char *)head->next;
        /* Room is a multiple of 16, so a size in it fits rounded up too; 0 is larger than any. */
#if defined(__GNUC__) || defined(__clang__)
        if (__builtin_constant_p(size) && size - 1 < AK_ARENA_CONSTANT_) {
            /* No end of a chunk is so near the end of the address space: two instructions less. */
            uintptr_t after = (uintptr_t)block + ((size + 15) & ~(size_t)15);
            if (AK_LIKELY_(after <= (uintptr_t)head->end)) {
                head->next = (struct ak_arena_byte_ *)(void *)(block + ((size + 15) & ~(size_t)15));
                return block;
            }
            return ak_arena_more_2(a, size);
        }
#endif
        if (AK_LIKELY_(size - 1 < (size_t)((char *)head->end - block))) {
            head->next = (struct ak_arena_byte_ *)(void *)(block + ((size + 15) & ~(size_t)15));
            return block;
        }
    }
    return ak_arena_more_2(a, size);
}

#if defined(__GNUC__) || defined(__clang__)
/* Where the alignment is a constant. An arena's end is so far from that of the address space that the sum does not overflow. */
AK_NODISCARD AK_INLINE_ void *ak_arena_alloc_aligned_inline_(ak_arena_t *a, size_t size, size_t alignment)
{
    ak_arena_head_t_ *head = (ak_arena_head_t_ *)(void *)a;
    if (__builtin_constant_p(alignment) && alignment - 1 < AK_ARENA_CONSTANT_ && (alignment & (alignment - 1)) == 0) {
        if (alignment <= 16) return ak_arena_alloc_inline_(a, size);
        if (AK_LIKELY_(a != NULL)) {
            char *next = (char *)head->next;
            size_t gap = (0 - (uintptr_t)next) & (alignment - 1);
            if (AK_LIKELY_(size - 1 < AK_ARENA_CONSTANT_
                           && (uintptr_t)next + gap + ((size + 15) & ~(size_t)15) <= (uintptr_t)head->end)) {
                head->next = (struct ak_arena_byte_ *)(void *)(next + gap + ((size + 15) & ~(size_t)15));
                head->wide = 1;
                return next + gap;
            }
        }
    }
    return (ak_arena_alloc_aligned)(a, size, alignment);
}
#endif

AK_NODISCARD AK_INLINE_ void *ak_pool_take_inline_(ak_pool_t *p)
{
    ak_pool_head_t_ *head = (ak_pool_head_t_ *)(void *)p;
    if (AK_LIKELY_(p != NULL)) {
        ak_pool_node_t_ *node = head->free;
        /* The last node of the list is the pool's own and has no key. */
        if (AK_LIKELY_(node->key == (head->key ^ (uintptr_t)node))) {
            void *object = node;
            head->free = node->next;
            node->key = 0;
#if defined(__GNUC__) || defined(__clang__)
            /* What was written as a node is read and written as whatever the caller likes from here on. */
            __asm__("" : "+r"(object) : : "memory");
#endif
            return object;
        }
    }
    return ak_pool_take_2(p);
}

AK_INLINE_ void ak_pool_give_inline_(ak_pool_t *p, void *object, const char *file, uint32_t line)
{
    ak_pool_head_t_ *head = (ak_pool_head_t_ *)(void *)p;
#if defined(__GNUC__) || defined(__clang__)
    __asm__("" : "+r"(object) : : "memory");
#endif
    if (AK_LIKELY_(p != NULL && (uintptr_t)object - head->low < head->span)) {
        ak_pool_node_t_ *node = (ak_pool_node_t_ *)object;
        uintptr_t key = head->key ^ (uintptr_t)node;
        if (AK_LIKELY_(node->key != key)) {
            node->next = head->free;
            node->key = key;
            head->free = node;
            return;
        }
    }
    ak_pool_give_1(p, object, file, line);
}

#ifndef AK_NO_INLINE
#define ak_arena_alloc(a, size) ak_arena_alloc_inline_((a), (size))
#if defined(__GNUC__) || defined(__clang__)
#define ak_arena_alloc_aligned(a, size, alignment) ak_arena_alloc_aligned_inline_((a), (size), (alignment))
#endif
#define ak_pool_take(p) ak_pool_take_inline_(p)
#endif

#ifdef AK_TRACK
#define ak_arena_new(opts) ak_arena_new_at((opts), __FILE__, __LINE__)
#define ak_arena_child(a, opts) ak_arena_child_at((a), (opts), __FILE__, __LINE__)
#define ak_arena_destroy(a) ak_arena_destroy_at((a), __FILE__, __LINE__)
#define ak_arena_realloc(a, p, old_size, new_size) \
    ak_arena_realloc_at((a), (p), (old_size), (new_size), __FILE__, __LINE__)
#define ak_arena_rewind(a, mark) ak_arena_rewind_at((a), (mark), __FILE__, __LINE__)
#define ak_scratch_end(s) ak_scratch_end_at((s), __FILE__, __LINE__)
#define ak_region_from_buffer(mem, size) ak_region_from_buffer_at((mem), (size), __FILE__, __LINE__)
#define ak_region_new(size) ak_region_new_at((size), __FILE__, __LINE__)
#define ak_region_child(r, size) ak_region_child_at((r), (size), __FILE__, __LINE__)
#define ak_region_destroy(r) ak_region_destroy_at((r), __FILE__, __LINE__)
#define ak_region_realloc(r, p, size) ak_region_realloc_at((r), (p), (size), __FILE__, __LINE__)
#define ak_region_free(p) ak_region_free_at((p), __FILE__, __LINE__)
#define ak_pool_new(object_size, opts) ak_pool_new_at((object_size), (opts), __FILE__, __LINE__)
#define ak_pool_destroy(p) ak_pool_destroy_at((p), __FILE__, __LINE__)
#define ak_stack_new(size, opts) ak_stack_new_at((size), (opts), __FILE__, __LINE__)
#define ak_stack_destroy(s) ak_stack_destroy_at((s), __FILE__, __LINE__)
#define ak_stack_pop(s, p) ak_stack_pop_at((s), (p), __FILE__, __LINE__)
#define ak_stack_release(s, mark) ak_stack_release_at((s), (mark), __FILE__, __LINE__)
#ifdef AK_NO_INLINE
#define ak_pool_give(p, object) ak_pool_give_1((p), (object), __FILE__, __LINE__)
#else
#define ak_pool_give(p, object) ak_pool_give_inline_((p), (object), __FILE__, __LINE__)
#endif
#elif !defined(AK_NO_INLINE)
#define ak_pool_give(p, object) ak_pool_give_inline_((p), (object), NULL, 0)
#endif

#endif /* ALLOKIT_ARENA_H */
