/*
 * allokit/heap.h - memory with an owner; alloc.h includes it.
 *
 * A heap is an allocator of its own: it has a name, statistics, perhaps a limit and a parent. Its blocks are freed one by
 * one, by ak_heap_free or by ak_free, from any thread; or all at once when the heap is reset or destroyed, which takes as
 * long as there are pages, not blocks. ak_free, ak_free_sized, ak_realloc, ak_reallocarray and ak_usable_size find the heap
 * of a block by themselves; a resized block stays in its heap.
 *
 * The rules of alloc.h hold: alignment 16 at least; size 0 gives a pointer of its own; failure gives NULL with ENOMEM (no
 * memory, a limit, an impossible size) or EINVAL (an alignment that is none, a NULL heap) and has changed nothing. Misuse
 * that is noticed is a fault and follows the policy (ak_policy_set): it is reported with the place where the heap was made
 * and the place of the call and the program is aborted; or reported, or only counted, and then the call does nothing and
 * gives NULL or false with EINVAL. Noticed are: a block of another heap or of none, one freed twice, a pointer into a block,
 * a heap that has been destroyed, and a heap that cannot be destroyed yet.
 *
 * Any number of threads may use a heap at the same time; only destroying it must come after all else. Names are copied (up
 * to 63 bytes); the file names that AK_TRACK passes are not. Options may be NULL; otherwise set struct_size to sizeof, and
 * leave at 0 what shall be as usual.
 */
#ifndef ALLOKIT_HEAP_H
#define ALLOKIT_HEAP_H

#ifdef __cplusplus
extern "C" {
#endif

typedef struct ak_heap ak_heap_t;

typedef struct ak_heap_opts {
    size_t struct_size;
    const char *name;  /* for reports */
    size_t limit;      /* the most bytes that blocks occupy, those of heaps below included; none */
    ak_heap_t *parent; /* whose limit counts too, and which must be destroyed later */
} ak_heap_opts_t;

/* Bytes are what blocks occupy: their usable sizes, which is also what limits count. */
typedef struct ak_heap_stats_t {
    size_t struct_size;
    size_t current_bytes;  /* of live blocks */
    size_t peak_bytes;     /* the most that current_bytes has been */
    size_t reserved_bytes; /* taken from the system for this heap, free parts included */
    size_t total_bytes;    /* current_bytes, and those of all heaps below: what the limit holds down */
    size_t limit_bytes;    /* 0: none */
    size_t block_count;    /* live blocks */
    size_t child_count;    /* heaps whose parent this one is */
    uint64_t alloc_count;  /* blocks handed out; a realloc that changes the block counts as one alloc and one free */
    uint64_t free_count;   /* blocks taken back, those of resets included */
    uint64_t failed_count; /* calls that failed for want of memory or at a limit */
} ak_heap_stats_t;

AK_NODISCARD AK_API ak_heap_t *ak_heap_new(const ak_heap_opts_t *opts);
AK_NODISCARD AK_API ak_heap_t *ak_heap_new_at(const ak_heap_opts_t *opts, const char *file, uint32_t line);
/* Ends the heap and all its blocks. NULL is allowed. While it is the parent of heaps that live, or of arenas, this is a
 * fault: nothing happens, and false is returned. */
AK_API bool ak_heap_destroy(ak_heap_t *heap);
AK_API bool ak_heap_destroy_at(ak_heap_t *heap, const char *file, uint32_t line);
/* Ends all blocks of the heap, not those of heaps below it. A fault, and false, while it is the parent of arenas. */
AK_API bool ak_heap_reset(ak_heap_t *heap);
AK_API bool ak_heap_reset_at(ak_heap_t *heap, const char *file, uint32_t line);

AK_NODISCARD AK_API void *ak_heap_alloc(ak_heap_t *heap, size_t size) AK_ATTR_((malloc)) AK_SIZE_(2);
AK_NODISCARD AK_API void *ak_heap_calloc(ak_heap_t *heap, size_t count, size_t size) AK_ATTR_((malloc))
    AK_SIZE2_(2, 3);
/* Aligned to any power of two up to 1 GiB. */
AK_NODISCARD AK_API void *ak_heap_alloc_aligned(ak_heap_t *heap, size_t size, size_t alignment) AK_ATTR_((malloc))
    AK_SIZE_(2) AK_ALIGN_(3);
/* Resizes a block of this heap. p NULL allocates; size 0 frees and returns NULL. Limits count the difference only. A block
 * that does not grow is never refused. */
AK_NODISCARD AK_API void *ak_heap_realloc(ak_heap_t *heap, void *p, size_t size) AK_SIZE_(3);
AK_NODISCARD AK_API void *ak_heap_realloc_at(ak_heap_t *heap, void *p, size_t size, const char *file, uint32_t line)
    AK_SIZE_(3);
/* Frees a block of this heap. NULL is allowed. Keeps errno. */
AK_API void ak_heap_free(ak_heap_t *heap, void *p);
AK_API void ak_heap_free_at(ak_heap_t *heap, void *p, const char *file, uint32_t line);
AK_NODISCARD AK_API char *ak_heap_strdup(ak_heap_t *heap, const char *s) AK_ATTR_((malloc));
AK_NODISCARD AK_API char *ak_heap_strndup(ak_heap_t *heap, const char *s, size_t n) AK_ATTR_((malloc));
AK_NODISCARD AK_API void *ak_heap_memdup(ak_heap_t *heap, const void *p, size_t n) AK_ATTR_((malloc)) AK_SIZE_(3);

/* Whether p points into a live block of the heap (not of one below). */
AK_NODISCARD AK_API bool ak_heap_owns(ak_heap_t *heap, const void *p);
/* Fills at most st->struct_size bytes and sets it to the bytes filled. */
AK_API bool ak_heap_stats(ak_heap_t *heap, ak_heap_stats_t *st);
/* True when no block of the heap is live (blocks of heaps below it are theirs). Otherwise prints under `context` how many there are,
 * the heap's name and where it was made, and acts by policy, as ak_assert_balanced does: AK_POLICY_ABORT ends the program, the
 * others return false. Exact, without tracking, in a few instructions; which line allocated a block is not known. */
AK_API bool ak_heap_assert_balanced(ak_heap_t *heap, const char *context);
/* The number of faults in the heap's records; 0 when all is well. Takes as long as there are blocks. */
AK_NODISCARD AK_API size_t ak_heap_check(ak_heap_t *heap);

/* A lua_Alloc: lua_newstate(ak_lua_alloc, heap). nsize 0 frees and returns NULL; a block that shrinks is never refused; what
 * is over a limit is, which Lua turns into a memory error of that state alone. osize is not looked at: for a NULL ptr it
 * says what kind of object is made. */
AK_API void *ak_lua_alloc(void *heap, void *ptr, size_t osize, size_t nsize);

#ifdef __cplusplus
} /* extern "C" */
#endif

#ifdef AK_TRACK
#define ak_heap_new(opts) ak_heap_new_at((opts), __FILE__, __LINE__)
#define ak_heap_destroy(heap) ak_heap_destroy_at((heap), __FILE__, __LINE__)
#define ak_heap_reset(heap) ak_heap_reset_at((heap), __FILE__, __LINE__)
#define ak_heap_realloc(heap, p, size) ak_heap_realloc_at((heap), (p), (size), __FILE__, __LINE__)
#define ak_heap_free(heap, p) ak_heap_free_at((heap), (p), __FILE__, __LINE__)
#endif

#endif /* ALLOKIT_HEAP_H */
