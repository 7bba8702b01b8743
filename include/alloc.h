/*
 * alloc.h - the C interface of Allokit, an allocator that a C runtime can swap without touching its code.
 *
 * Include this file, link one library (liballokit_native, _mimalloc, _jemalloc or _system), call ak_alloc and ak_free.
 *
 * Rules that hold for every backend and every mode:
 *   - every block is aligned to at least 16 bytes, whatever its size;
 *   - size 0 gives a unique pointer that is not NULL and must be freed;
 *   - failure gives NULL with errno set: ENOMEM (too large, or no memory), EINVAL (alignment is no power of two);
 *   - ak_realloc(NULL, n) allocates, ak_realloc(p, 0) frees p and returns NULL; a failed realloc leaves p as it was;
 *   - ak_free(NULL) does nothing, and ak_free never changes errno;
 *   - every function is thread-safe, any thread frees any block, and freeing works in atexit handlers, in destructors
 *     of thread-local data and in a forked child.
 *
 * Define AK_TRACK before including this file (CMake: ALLOKIT_TRACK=ON does it) and each call passes its file, line
 * and function, so that ak_leaks_print() can name them. Without it a call is the plain function, or its first few
 * instructions in place when AK_INLINE_NATIVE is defined (CMake does it for the static native library; see
 * allokit/inline.h; AK_NO_INLINE undoes it).
 *
 * C99, C11, C17, C23; C++11 and later. Sizes are in bytes everywhere.
 */
#ifndef ALLOKIT_ALLOC_H
#define ALLOKIT_ALLOC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The number of the binary interface that this header describes; the library's own is ak_abi_version(). */
#define AK_ABI_VERSION 1

/* ---- the compiler's attributes ---------------------------------------------------------------------------------- */

#if defined(__GNUC__) || defined(__clang__)
#define AK_ATTR_(list) __attribute__(list)
#else
#define AK_ATTR_(list)
#endif

#if defined(__cplusplus) && __cplusplus >= 201703L
#define AK_NODISCARD [[nodiscard]]
#elif defined(__STDC_VERSION__) && __STDC_VERSION__ > 201710L && !defined(__cplusplus)
#define AK_NODISCARD [[nodiscard]]
#elif defined(__GNUC__) || defined(__clang__)
#define AK_NODISCARD __attribute__((warn_unused_result))
#else
#define AK_NODISCARD
#endif

/* A fresh block that aliases nothing; on GCC 11 and later also: the functions that may free it, so that
 * -Wmismatched-dealloc names a block of ours given to free(). Without the realloc functions: GCC would hold that they
 * always free, and warn of `q = ak_realloc(p, n); if (q == NULL) ak_free(p);`. */
#if defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 11
#define AK_MALLOC_                                                                                                     \
    AK_ATTR_((malloc, malloc(ak_free, 1), malloc(ak_free_sized, 1), malloc(ak_free_at, 1), malloc(ak_free_sized_at, 1), \
              malloc(ak_free_site, 1), malloc(ak_free_sized_site, 1)))
#else
#define AK_MALLOC_ AK_ATTR_((malloc))
#endif
#define AK_SIZE_(a) AK_ATTR_((alloc_size(a)))
#define AK_SIZE2_(a, b) AK_ATTR_((alloc_size(a, b)))
#define AK_ALIGN_(a) AK_ATTR_((alloc_align(a)))

/* Symbols of the library; a shared build on Windows would add dllimport here. */
#ifndef AK_API
#define AK_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ---- a call site ------------------------------------------------------------------------------------------------ */

/* One static record for each macro use under AK_TRACK. `id` belongs to the library: 0 until the site is first used. */
typedef struct ak_site {
    const char *file;
    const char *function;
    uint32_t line;
    uint32_t id;
} ak_site_t;

/* ---- general purpose -------------------------------------------------------------------------------------------- */

/* Frees a block. NULL is allowed. Preserves errno. */
AK_API void ak_free(void *ptr);
/* Frees a block of which the caller knows the size that it asked for; faster on some backends, checked when tracked. */
AK_API void ak_free_sized(void *ptr, size_t size);

AK_API void ak_free_at(void *ptr, const char *file, uint32_t line);
AK_API void ak_free_sized_at(void *ptr, size_t size, const char *file, uint32_t line);
AK_API void ak_free_site(void *ptr, ak_site_t *site);
AK_API void ak_free_sized_site(void *ptr, size_t size, ak_site_t *site);

/* Resizes a block, moving it if it must; the contents are kept up to the smaller size. ptr NULL allocates; size 0
 * frees ptr and returns NULL. On failure NULL, and the old block is untouched. */
AK_NODISCARD AK_API void *ak_realloc(void *ptr, size_t size) AK_SIZE_(2);
AK_NODISCARD AK_API void *ak_realloc_at(void *ptr, size_t size, const char *file, uint32_t line) AK_SIZE_(2);
AK_NODISCARD AK_API void *ak_realloc_site(void *ptr, size_t size, ak_site_t *site) AK_SIZE_(2);

/* ak_realloc to count * size bytes; NULL with ENOMEM when the product does not fit. */
AK_NODISCARD AK_API void *ak_reallocarray(void *ptr, size_t count, size_t size) AK_SIZE2_(2, 3);
AK_NODISCARD AK_API void *ak_reallocarray_at(void *ptr, size_t count, size_t size, const char *file, uint32_t line)
    AK_SIZE2_(2, 3);
AK_NODISCARD AK_API void *ak_reallocarray_site(void *ptr, size_t count, size_t size, ak_site_t *site) AK_SIZE2_(2, 3);

/* The same, and the result keeps the alignment, a power of two. What AK_RESIZE calls for types aligned above 16. */
AK_NODISCARD AK_API void *ak_reallocarray_aligned(void *ptr, size_t count, size_t size, size_t alignment)
    AK_SIZE2_(2, 3) AK_ALIGN_(4);
AK_NODISCARD AK_API void *ak_reallocarray_aligned_at(void *ptr, size_t count, size_t size, size_t alignment,
                                                     const char *file, uint32_t line) AK_SIZE2_(2, 3) AK_ALIGN_(4);
AK_NODISCARD AK_API void *ak_reallocarray_aligned_site(void *ptr, size_t count, size_t size, size_t alignment,
                                                       ak_site_t *site) AK_SIZE2_(2, 3) AK_ALIGN_(4);

/* A block of `size` bytes, contents undefined. */
AK_NODISCARD AK_API void *ak_alloc(size_t size) AK_MALLOC_ AK_SIZE_(1);
AK_NODISCARD AK_API void *ak_alloc_at(size_t size, const char *file, uint32_t line) AK_MALLOC_ AK_SIZE_(1);
AK_NODISCARD AK_API void *ak_alloc_site(size_t size, ak_site_t *site) AK_MALLOC_ AK_SIZE_(1);

/* A zeroed block of count * size bytes; NULL with ENOMEM when the product does not fit. */
AK_NODISCARD AK_API void *ak_calloc(size_t count, size_t size) AK_MALLOC_ AK_SIZE2_(1, 2);
AK_NODISCARD AK_API void *ak_calloc_at(size_t count, size_t size, const char *file, uint32_t line) AK_MALLOC_
    AK_SIZE2_(1, 2);
AK_NODISCARD AK_API void *ak_calloc_site(size_t count, size_t size, ak_site_t *site) AK_MALLOC_ AK_SIZE2_(1, 2);

/* A block aligned to `alignment`, a power of two up to 1 GiB; size need not be a multiple of it. Freed by ak_free. */
AK_NODISCARD AK_API void *ak_alloc_aligned(size_t size, size_t alignment) AK_MALLOC_ AK_SIZE_(1) AK_ALIGN_(2);
AK_NODISCARD AK_API void *ak_alloc_aligned_at(size_t size, size_t alignment, const char *file, uint32_t line)
    AK_MALLOC_ AK_SIZE_(1) AK_ALIGN_(2);
AK_NODISCARD AK_API void *ak_alloc_aligned_site(size_t size, size_t alignment, ak_site_t *site) AK_MALLOC_ AK_SIZE_(1)
    AK_ALIGN_(2);

/* ak_alloc_aligned of count * size bytes, zeroed. What AK_NEW and AK_ARRAY call for types aligned above 16. */
AK_NODISCARD AK_API void *ak_calloc_aligned(size_t count, size_t size, size_t alignment) AK_MALLOC_ AK_SIZE2_(1, 2)
    AK_ALIGN_(3);
AK_NODISCARD AK_API void *ak_calloc_aligned_at(size_t count, size_t size, size_t alignment, const char *file,
                                               uint32_t line) AK_MALLOC_ AK_SIZE2_(1, 2) AK_ALIGN_(3);
AK_NODISCARD AK_API void *ak_calloc_aligned_site(size_t count, size_t size, size_t alignment, ak_site_t *site)
    AK_MALLOC_ AK_SIZE2_(1, 2) AK_ALIGN_(3);

/* A copy of a string; of at most n bytes of it; of n bytes. NULL in, NULL out (errno EINVAL), except ak_memdup of 0. */
AK_NODISCARD AK_API char *ak_strdup(const char *s) AK_MALLOC_;
AK_NODISCARD AK_API char *ak_strdup_at(const char *s, const char *file, uint32_t line) AK_MALLOC_;
AK_NODISCARD AK_API char *ak_strdup_site(const char *s, ak_site_t *site) AK_MALLOC_;
AK_NODISCARD AK_API char *ak_strndup(const char *s, size_t n) AK_MALLOC_;
AK_NODISCARD AK_API char *ak_strndup_at(const char *s, size_t n, const char *file, uint32_t line) AK_MALLOC_;
AK_NODISCARD AK_API char *ak_strndup_site(const char *s, size_t n, ak_site_t *site) AK_MALLOC_;
AK_NODISCARD AK_API void *ak_memdup(const void *p, size_t n) AK_MALLOC_ AK_SIZE_(2);
AK_NODISCARD AK_API void *ak_memdup_at(const void *p, size_t n, const char *file, uint32_t line) AK_MALLOC_ AK_SIZE_(2);
AK_NODISCARD AK_API void *ak_memdup_site(const void *p, size_t n, ak_site_t *site) AK_MALLOC_ AK_SIZE_(2);

/* How many bytes of the block may be used: at least the size asked for. 0 for NULL. */
AK_NODISCARD AK_API size_t ak_usable_size(const void *ptr);
AK_NODISCARD AK_API size_t ak_usable_size_at(const void *ptr, const char *file, uint32_t line);
AK_NODISCARD AK_API size_t ak_usable_size_site(const void *ptr, ak_site_t *site);

/* ---- what is linked --------------------------------------------------------------------------------------------- */

/* "0.1.0": the library's version. */
AK_NODISCARD AK_API const char *ak_version(void);
/* Equal to AK_ABI_VERSION when header and library belong together. */
AK_NODISCARD AK_API uint32_t ak_abi_version(void);
/* "native", "mimalloc", "jemalloc" or "system". */
AK_NODISCARD AK_API const char *ak_backend_name(void);

/* ---- statistics ------------------------------------------------------------------------------------------------- */

/* Which fields of ak_stats_t this backend can know in this mode: bits of `known`. */
enum {
    AK_KNOWN_ALLOC_COUNT = 1 << 0,
    AK_KNOWN_FREE_COUNT = 1 << 1,
    AK_KNOWN_ALLOC_BYTES = 1 << 2,
    AK_KNOWN_FREE_BYTES = 1 << 3,
    AK_KNOWN_CURRENT_BYTES = 1 << 4,
    AK_KNOWN_PEAK_BYTES = 1 << 5,
    AK_KNOWN_RESERVED_BYTES = 1 << 6,
    AK_KNOWN_COMMITTED_BYTES = 1 << 7,
    AK_KNOWN_MAPPED_PEAK_BYTES = 1 << 8,
    AK_KNOWN_THREADS = 1 << 9
};

/* Set struct_size to sizeof(ak_stats_t), then call ak_stats_get. A field whose bit is not in `known` is 0 and means
 * nothing. The first six count what the program asked for when tracking is on; without it, current_bytes (where it is
 * known) is what the live blocks occupy. */
typedef struct ak_stats {
    size_t struct_size;
    uint64_t known;
    uint64_t alloc_count;       /* blocks handed out; a realloc that succeeds counts as one alloc and one free */
    uint64_t free_count;        /* blocks taken back */
    uint64_t alloc_bytes;       /* bytes handed out */
    uint64_t free_bytes;        /* bytes taken back */
    uint64_t current_bytes;     /* bytes live now */
    uint64_t peak_bytes;        /* the most that was live; with several threads at most 64 KiB a thread too high */
    uint64_t reserved_bytes;    /* address space held */
    uint64_t committed_bytes;   /* memory held: live, cached or not yet given back */
    uint64_t mapped_peak_bytes; /* the most that committed_bytes has been */
    uint64_t threads;           /* threads that hold allocator state now */
} ak_stats_t;

/* AK_LINES is for leaks and growth only: a line for each call site as compilers write them, `file:line: warning: text`. */
typedef enum ak_format {
    AK_TEXT = 0,
    AK_JSON = 1,
    AK_PROMETHEUS = 2,
    AK_OPENMETRICS = 3,
    AK_LINES = 4
} ak_format_t;

/* Receives a piece of output; pieces follow one another and are not terminated by a zero byte. */
typedef void (*ak_write_fn)(const char *text, size_t length, void *arg);

/* Fills at most st->struct_size bytes and sets it to the bytes filled. False, with EINVAL, when it is too small. */
AK_API bool ak_stats_get(ak_stats_t *st);
/* The statistics as text on stderr. */
AK_API void ak_stats_print(void);
/* The statistics in a format, through a writer. False, with EINVAL, for an unknown format or no writer. */
AK_API bool ak_stats_write(ak_format_t format, ak_write_fn write, void *arg);

/* ---- tracking --------------------------------------------------------------------------------------------------- */

typedef enum ak_track { AK_TRACK_OFF = 0, AK_TRACK_SITES = 1, AK_TRACK_STACKS = 2 } ak_track_t;

/* Chooses what is tracked: nothing, the call site of each block, or its stack: the calls that led to it, too. On the native
 * backend at any time, as often as wanted: blocks from before stay valid, and those that were allocated while tracking was on
 * stay known. (Once it was switched on in a running program, untracked calls cost a few instructions more.) On the others it
 * can be switched between sites and stacks at any time, but on only before the first allocation (or use the environment:
 * ALLOKIT_TRACK=sites), and not off. True when the level is in force; otherwise false with errno EBUSY (too late), ENOTSUP
 * (this build cannot) or EINVAL (no such level). Thread-safe. */
AK_API bool ak_track_set(ak_track_t level);
AK_NODISCARD AK_API ak_track_t ak_track_get(void);

/* With stacks: of so many bytes that a thread allocates one is chosen at random, and the block that it lies in gets its stack;
 * the others cost little and are in no report by call site, whose figures are estimates then (those of ak_stats_t stay
 * exact). 0, the default unless ALLOKIT_SAMPLE says something else: each block gets its stack, and all is exact. 524288 (512
 * KiB) is usual in production. May be called at any time, from any thread, and holds for allocations from then on; more than
 * 2^40 count as 2^40. False with errno ENOTSUP in a build without tracking. */
AK_API bool ak_track_sample_set(size_t bytes);
AK_NODISCARD AK_API size_t ak_track_sample_get(void);

/* Prints the live blocks to stderr, grouped by call site, most bytes first, and returns how many blocks there are. */
AK_API size_t ak_leaks_print(void);
/* The live blocks as AK_TEXT (tables by call site, size and age), AK_JSON (the same, docs/tracking.md) or AK_LINES (`file:line:
 * warning: 20 bytes in 2 blocks leaked (function)`), through a writer, which may allocate. ALLOKIT_LEAKS=text, json or lines
 * does it at exit. False with errno EINVAL (another format, no writer) or ENOTSUP (tracking is off). Thread-safe. */
AK_API bool ak_leaks_write(ak_format_t format, ak_write_fn write, void *arg);
/* Starts a stretch: ak_assert_balanced looks at the blocks that were allocated since. */
AK_API void ak_mark(void);
/* True when no block allocated since the last ak_mark (or the start) is live. Otherwise prints those blocks under
 * `context` and acts by policy: AK_POLICY_ABORT ends the program, the others return false. */
AK_API bool ak_assert_balanced(const char *context);

/* What is known of a call site, and what is live of it. The texts stay for the life of the process. */
typedef struct ak_site_info {
    size_t struct_size;   /* what the library filled in */
    const char *file;     /* or NULL: a return address, or unknown */
    const char *function; /* or NULL */
    uint32_t line;        /* or 0 */
    uint32_t number;      /* the same place has the same number in the whole process; 0: unknown */
    const void *address;  /* the return address, or NULL */
    uint64_t live_blocks;
    uint64_t live_bytes;
} ak_site_info_t;
typedef bool (*ak_site_fn)(const ak_site_info_t *site, void *arg);
/* Calls `fn` with each call site that has live blocks, most bytes first, until it returns false; the number of calls.
 * What other threads do meanwhile may be counted or not. 0 with errno ENOTSUP when tracking is off. `fn` may allocate. */
AK_API size_t ak_site_visit(ak_site_fn fn, void *arg);

/* What is live now, by call site, to be compared with another moment; in memory outside the heap. NULL with errno ENOTSUP
 * (tracking is off) or ENOMEM. */
typedef struct ak_snapshot ak_snapshot_t;
AK_NODISCARD AK_API ak_snapshot_t *ak_snapshot_take(void);
/* Writes how the live blocks have changed from `before` to `after` (NULL: to now), the call site that grew most first, as
 * AK_TEXT or AK_JSON. False with errno EINVAL (before NULL, another format, no writer), ENOTSUP or ENOMEM. */
AK_API bool ak_snapshot_diff(const ak_snapshot_t *before, const ak_snapshot_t *after, ak_format_t format,
                             ak_write_fn write, void *arg);
/* Ends a snapshot; NULL is allowed. */
AK_API void ak_snapshot_free(ak_snapshot_t *snapshot);

/* Growth: which call sites become more and more, in a program that runs on. ak_growth_take keeps what is live by call site now,
 * beside the last 63 times (outside the heap, 16 bytes a call site); ALLOKIT_GROWTH=30s has it done every 30 seconds. False
 * with errno ENOTSUP (tracking is off) or ENOMEM. ak_growth_write compares all of them, through a writer, which may allocate:
 * how often each site grew, by how much, and whether that is likely a leak, the likeliest first; AK_TEXT, AK_JSON or AK_LINES
 * (only what may leak). False with errno EINVAL or ENOTSUP. The pages and profiles of ak_profile_write have it too. Both are
 * thread-safe. */
AK_API bool ak_growth_take(void);
AK_API bool ak_growth_write(ak_format_t format, ak_write_fn write, void *arg);

/* AK_PPROF: `go tool pprof` and what else reads profile.proto; AK_FOLDED: a line a call site, for flame graphs; AK_HTML: a
 * page for a browser, whole in itself; AK_PROFILE_JSON: the data of that page, which the command `allokit` reads. */
typedef enum ak_profile { AK_PPROF = 0, AK_FOLDED = 1, AK_HTML = 2, AK_PROFILE_JSON = 3 } ak_profile_t;
/* Writes what is live into a file, which gets its name when it is whole; ALLOKIT_PROFILE=pprof:path does it at exit. False
 * with errno when it cannot be written (what was there before stays), ENOTSUP (tracking is off) or EINVAL. */
AK_API bool ak_profile_write(ak_profile_t format, const char *path);

/* What happens on a wrong free and the like: report and abort (the default), report and go on safely, count silently. */
typedef enum ak_policy { AK_POLICY_ABORT = 0, AK_POLICY_REPORT = 1, AK_POLICY_QUIET = 2 } ak_policy_t;
/* False, with EINVAL, for an unknown policy. May be called at any time. */
AK_API bool ak_policy_set(ak_policy_t policy);
AK_NODISCARD AK_API ak_policy_t ak_policy_get(void);
/* How many faults (wrong frees and the like) have been seen so far, under any policy. */
AK_NODISCARD AK_API uint64_t ak_fault_count(void);

/* Looks at every live block, reports each that is damaged as the policy says, and returns how many faults there were. In a
 * guarded library: headers, canaries, and what was written to freed blocks that wait; otherwise, with tracking on, headers
 * only; otherwise nothing is known, and it is 0. (Regions: ak_region_check.) Other threads may go on meanwhile. It takes
 * time in proportion to the heap; ALLOKIT_CHECK=n has a guarded library do it every n frees of a thread. */
AK_API size_t ak_check(void);

/* Sampled guarding, on the native backend: about one in `every` small blocks (up to 32 KiB) lies between pages without access
 * rights, and when it is freed its pages have none either, so an access beyond its end or after it raises SIGSEGV where it
 * happens. Before the signal goes on to the program's handler, or ends the program, a report names the block, where it was
 * allocated and freed and where the program is; under AK_POLICY_REPORT and AK_POLICY_QUIET the access is let through and the
 * program goes on. At most 256 such blocks at a time and 1 MiB; for `every` from 100 on at most 125 a second. 0: none from
 * now on. ALLOKIT_GUARD_SAMPLE=on|N does it from the start (on: 5000). May be called at any time, but not from an allocator or
 * a signal handler: it may load the unwinder (libgcc_s.so.1). A handler for SIGSEGV or SIGBUS that the program sets after the
 * first call sees the signal alone. False with errno ENOTSUP (another backend, a guarded library) or ENOMEM. */
AK_API bool ak_guard_sample_set(size_t every);
/* Whether a pointer is into such a block, live or freed. */
AK_NODISCARD AK_API bool ak_guard_sampled(const void *ptr);

/* What a report is about. A later library may know more kinds, after these. */
typedef enum ak_fault_kind {
    AK_FAULT_DOUBLE_FREE = 1,        /* a block that is freed already was freed, or resized, or asked for its size */
    AK_FAULT_INVALID_FREE = 2,       /* the same with a pointer that is no block, or into the middle of one */
    AK_FAULT_OVERFLOW = 3,           /* written past the end of a block */
    AK_FAULT_UNDERFLOW = 4,          /* written before the start of a block */
    AK_FAULT_WRITE_AFTER_FREE = 5,   /* written after it was freed, given back or reset */
    AK_FAULT_SIZE_MISMATCH = 6,      /* freed with another size than it has */
    AK_FAULT_ALLOCATOR_MISMATCH = 7, /* a block, object or mark of another allocator, arena, region, pool or stack */
    AK_FAULT_LEAK = 8,               /* live at ak_assert_balanced: one call for each call site, most bytes first */
    AK_FAULT_OUT_OF_MEMORY = 9,      /* a request that failed: no fault, no policy acts on it, and it is not counted */
    AK_FAULT_CORRUPTED_ARENA = 10,   /* the records of an arena, region, pool or stack are not what was written */
    AK_FAULT_USE_AFTER_RESET = 11,   /* a mark or a block from before a reset or rewind */
    AK_FAULT_USE_AFTER_DESTROY = 12, /* an arena, region, pool or stack that has ended, or never was one */
    AK_FAULT_OUT_OF_ORDER = 13,      /* a block, mark or stretch that is not the newest */
    AK_FAULT_READ_AFTER_FREE = 14    /* read after it was freed: sampled guarding */
} ak_fault_kind_t;

/* A place in the program, as far as it is known: file and line, or a return address; NULL and 0 otherwise. */
typedef struct ak_place {
    const char *file;
    const char *function;
    uintptr_t address;
    uint32_t line;
} ak_place_t;

/* A report. What is not known, or has no meaning for the kind, is 0 or NULL. A library that is newer than the program may
 * have a longer struct: struct_size is the library's. The texts hold until the handler returns. */
typedef struct ak_fault {
    size_t struct_size;
    ak_fault_kind_t kind;
    ak_policy_t policy;    /* what becomes of the program when the handler returns */
    const char *operation; /* what was about to be done: "free", "realloc", "rewind" */
    const void *block;     /* the pointer that it was to be done with: a block, an object, an arena */
    size_t offset;         /* how far into its block it points */
    size_t size;           /* of the block, as asked for; of a leak, the bytes of all; of a failed request, the bytes asked for */
    size_t told_size;      /* what the caller of ak_free_sized said */
    uint64_t count;        /* blocks of a leak */
    ak_place_t allocated;  /* where the block was allocated */
    ak_place_t freed;      /* where it was freed first */
    ak_place_t now;        /* where this was noticed: the call */
    const char *owner;     /* "arena", "region", "pool", "stack"; NULL for the general functions */
    const char *name;      /* the owner's name */
    ak_place_t made;       /* where the owner was made */
    const char *context;   /* what ak_assert_balanced was told */
    size_t over_bytes;     /* of an overflow: up to how far past the block's end was written, as far as that was seen */
} ak_fault_t;

typedef void (*ak_error_fn)(const ak_fault_t *fault, void *arg);

/* Has every report handed to `fn` too: under each policy, after it was printed and before the program is aborted; under
 * AK_POLICY_QUIET it is all that happens. NULL: nobody. The last call counts. On the thread that made the mistake, with no
 * lock held: the handler may allocate and free. A fault inside the handler follows the policy and is not handed to it
 * again. It may end the program, or leave by longjmp (not by an exception): then the abort does not come. Another thread may still be in the old handler when this
 * returns. False, with ENOMEM and the old handler in force, when there is no memory to remember it.
 * General-purpose faults and failed requests are seen with tracking on; those of arenas and the like always. */
AK_API bool ak_error_handler_set(ak_error_fn fn, void *arg);
/* "double free", "use after reset"; "unknown fault" for a number that is none. */
AK_NODISCARD AK_API const char *ak_fault_name(ak_fault_kind_t kind);

/* ---- a limit, and failures on purpose --------------------------------------------------------------------------- */

/* Caps the process at so many bytes; 0: no limit (the default). A request that would go over it gives NULL with ENOMEM, and
 * nothing changes, after the allocator has given back what it caches. ALLOKIT_LIMIT=512M does the same from the start.
 * What counts: on native, the memory held (committed_bytes of ak_stats_t: blocks, and what is free but not given back, in
 * steps of 64 KiB) - no call becomes slower; on the other backends, what the live blocks occupy (ak_usable_size), and each call
 * takes the long way from the first limit on. What heaps hold counts on every backend. The allocator's own records, and
 * regions in a caller's buffer, do not. On the backends other than native, blocks that are live when the first limit is set
 * count as far as the backend can tell; mimalloc cannot, and counts what it holds.
 * A limit below what counts already takes nothing away: requests fail until it is less. True; false with ENOTSUP in a build
 * without tracking on a backend other than native. Thread-safe, at any time. Heaps and arenas have limits of their own. */
AK_API bool ak_limit_set(size_t bytes);
/* The limit; 0: none. */
AK_NODISCARD AK_API size_t ak_limit_get(void);
/* What counts against the limit now, in bytes; on a backend other than native only heaps until there is a limit. */
AK_NODISCARD AK_API size_t ak_limit_used(void);

/* The n-th request of memory from now on fails (the first is 1): NULL with ENOMEM, and an ak_realloc leaves its block. 0: none.
 * A request is each call that gives memory: alloc, calloc, realloc (to less, too), the aligned and the copying ones, those of
 * heaps, and the chunks that arenas, pools and stacks take. Calls with wrong arguments, and sizes that cannot be, do not
 * count. Frees never fail. ALLOKIT_FAIL_NTH=n does the same from the start (n+: that one and all after it).
 * This and the next two start counting again, concern the whole process, and cost nothing until the first of them; from then on
 * each call takes a longer way. True; false with ENOTSUP in a build without tracking (ALLOKIT_TRACK=OFF). Thread-safe; what
 * other threads are in the middle of may not be counted. */
AK_API bool ak_fail_nth(uint64_t n);
/* So many requests of a million fail; 0: none. Which ones depends on the seed and on how many came before: with one
 * thread a program has the same failures each time. False with EINVAL for more than a million. ALLOKIT_FAIL_RATE=rate[:seed] */
AK_API bool ak_fail_rate(uint32_t per_million, uint64_t seed);

/* Which requests count and may fail. Zero, or NULL, stands for any; what is set must all hold. */
typedef struct ak_fail_filter {
    size_t struct_size;   /* sizeof(ak_fail_filter_t) */
    const char *file;     /* where the call is, as AK_TRACK and the _at functions know it: all of its path, or whole names
                             at the end of it. Calls of code compiled without AK_TRACK have none. Up to 256 bytes */
    const char *function; /* the function that calls; without AK_TRACK its symbol, if the module exports it */
    uint32_t line;        /* the line of the call */
    uint32_t reserved;
    const void *address;  /* the address that the call returns to (code compiled without AK_TRACK) */
    struct ak_heap *heap; /* only requests of this heap, and of arenas in it */
    size_t min_size;      /* bytes asked for: at least, */
    size_t max_size;      /* and at most */
    uint64_t times;       /* how many requests fail from the n-th of ak_fail_nth on; 0 and 1: only that one */
} ak_fail_filter_t;
/* From now on only these requests count and may fail; NULL: all. The texts are copied. False with EINVAL (a text is too long;
 * then all are meant) or ENOTSUP. ALLOKIT_FAIL_ONLY=file.c:12 (or file.c, function, module+0x1f, 16-4096; several with commas) */
AK_API bool ak_fail_only(const ak_fail_filter_t *only);
/* How many requests counted since the last of these three calls: when it stays below n, a sweep over n is through. (They are
 * counted while there is an n or a rate: ak_fail_nth(UINT64_MAX) counts and fails none.) */
AK_NODISCARD AK_API uint64_t ak_fail_seen(void);
/* How many of them failed on purpose. */
AK_NODISCARD AK_API uint64_t ak_fail_count(void);

#ifdef __cplusplus
} /* extern "C" */
#endif

/* ---- call sites under AK_TRACK, or the fast path in the caller ---------------------------------------------------------------------------------- */

#if defined(AK_TRACK)
#include "allokit/track.h"
#elif defined(AK_INLINE_NATIVE) && !defined(AK_NO_INLINE)
#include "allokit/inline.h"
#endif

/* ---- heaps ------------------------------------------------------------------------------------------------------ */

#include "allokit/heap.h"

/* ---- arenas, scratch, regions, pools, stacks ------------------------------------------------------------------------- */

#include "allokit/arena.h"

/* ---- typed allocation ------------------------------------------------------------------------------------------- */

#if defined(__cplusplus)
#define AK_ALIGNOF_(T) alignof(T)
#elif defined(__GNUC__) || defined(__clang__)
#define AK_ALIGNOF_(T) __alignof__(T)
#elif defined(__STDC_VERSION__) && __STDC_VERSION__ >= 201112L
#define AK_ALIGNOF_(T) _Alignof(T)
#else
#define AK_ALIGNOF_(T) 16
#endif

/* AK_NEW(T): one zeroed T. AK_ARRAY(T, n): n zeroed T, the product checked. AK_RESIZE(p, T, n): p grown or shrunk to n
 * T, as ak_reallocarray (new elements are not zeroed). All return T * or NULL. */
#define AK_NEW(T) AK_ARRAY(T, 1)
#define AK_ARRAY(T, n)                                                                                                 \
    ((T *)(AK_ALIGNOF_(T) > 16 ? ak_calloc_aligned((n), sizeof(T), AK_ALIGNOF_(T)) : ak_calloc((n), sizeof(T))))
#define AK_RESIZE(p, T, n)                                                                                             \
    ((T *)(AK_ALIGNOF_(T) > 16 ? ak_reallocarray_aligned((p), (n), sizeof(T), AK_ALIGNOF_(T))                           \
                               : ak_reallocarray((p), (n), sizeof(T))))

/* AK_FREE(p): frees p and sets it to NULL; p is evaluated once where the compiler can. */
#if defined(__GNUC__) || defined(__clang__)
#define AK_FREE(p)                                                                                                     \
    __extension__({                                                                                                    \
        __typeof__(p) *ak_where_ = &(p);                                                                               \
        ak_free((void *)*ak_where_);                                                                                   \
        *ak_where_ = NULL;                                                                                             \
    })
#else
#define AK_FREE(p) (ak_free((void *)(p)), (void)((p) = NULL))
#endif

#endif /* ALLOKIT_ALLOC_H */
