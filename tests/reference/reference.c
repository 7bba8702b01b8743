/*
 * reference.c - alloc.h written down once more, as simply as it goes, over libc and a table under one lock: what the
 * tests are tested with. REFERENCE_BUG=name in its environment makes it wrong in one named way (mutants.txt says which
 * test must notice). Never part of a product; slow on purpose.
 */
#define _GNU_SOURCE 1
#include <alloc.h>

#include <dlfcn.h>
#include <errno.h>
#include <inttypes.h>
#include <malloc.h>
#include <pthread.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/* ---- the bug -------------------------------------------------------------------------------------------------------- */

static const char *bug_name;
static bool bug(const char *name) {
    if (bug_name == NULL) {
        bug_name = getenv("REFERENCE_BUG");
        if (bug_name == NULL) bug_name = "";
    }
    return strcmp(bug_name, name) == 0;
}

/* ---- places --------------------------------------------------------------------------------------------------------- */

typedef struct place {
    char file[64], function[64]; /* file empty: `address` is a return address */
    unsigned line;
    void *address;
} place_t;

static place_t place_of(const char *file, const char *function, uint32_t line, void *address) {
    place_t place;
    memset(&place, 0, sizeof place);
    if (file != NULL) snprintf(place.file, sizeof place.file, "%s", file);
    if (file != NULL && bug("names_not_copied")) snprintf(place.file, sizeof place.file, "????????????????");
    if (function != NULL) snprintf(place.function, sizeof place.function, "%s", function);
    place.line = line;
    place.address = file == NULL ? address : NULL;
    return place;
}

static void place_print(char *into, size_t size, const place_t *place) {
    Dl_info info;
    if (place->file[0] != 0 && place->function[0] != 0) {
        snprintf(into, size, "%s:%u (%s)", place->file, place->line, place->function);
    } else if (place->file[0] != 0) {
        snprintf(into, size, "%s:%u", place->file, place->line);
    } else if (dladdr(place->address, &info) != 0 && info.dli_fname != NULL) {
        const char *name = strrchr(info.dli_fname, '/') == NULL ? info.dli_fname : strrchr(info.dli_fname, '/') + 1;
        size_t from = (size_t)(info.dli_sname != NULL ? info.dli_saddr : info.dli_fbase);
        if (bug("no_modules")) snprintf(into, size, "%p", place->address);
        else snprintf(into, size, "%s(%s+0x%zx)", name, info.dli_sname != NULL ? info.dli_sname : "", (size_t)place->address - from);
    } else {
        snprintf(into, size, "%p", place->address);
    }
}

/* ---- state ---------------------------------------------------------------------------------------------------------- */

enum { BUCKETS = 1 << 16 };
typedef struct record {
    struct record *next;
    char *block;
    size_t size;
    bool live;
    uint64_t number; /* of the allocation, for marks */
    pthread_t thread;
    place_t allocated, freed;
} record_t;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static record_t *table[BUCKETS];
static record_t *graves[1024]; /* the latest freed blocks, whose records stay */
static size_t grave;
static uint64_t counters[6]; /* alloc_count free_count alloc_bytes free_bytes current_bytes peak_bytes */
static uint64_t marked, faults;
static int level = -1;
static ak_policy_t policy = AK_POLICY_ABORT;
static bool used, ended;
static _Thread_local bool thread_ended;
static pthread_key_t end_key;

static void lock_take(void) { pthread_mutex_lock(&lock); }
static void lock_give(void) { pthread_mutex_unlock(&lock); }
static void mark_thread_ended(void *value) {
    (void)value;
    thread_ended = true;
}

static void say(const char *format, ...) {
    char text[4096];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (write(STDERR_FILENO, text, (size_t)length) < 0) abort();
}

static void at_end(void);
static void read_failures(void);
static void set_ended(void) { ended = true; }
extern int __cxa_thread_atexit_impl(void (*)(void *), void *, void *); /* runs before the destructors of pthread keys */
extern void *__dso_handle;
static void reset_counters(void) { memset(counters, 0, sizeof counters); }
static void start(void) {
    if (level >= 0) return;
    level = AK_TRACK_OFF;
    read_failures();
    if (bug("reserves_1_tib") &&
        mmap(NULL, (size_t)1 << 40, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0) == MAP_FAILED)
        abort();
    const char *value = getenv("ALLOKIT_TRACK");
    if (value != NULL && bug("level_ignored")) {
        level = AK_TRACK_OFF;
    } else if (value != NULL && strcmp(value, "sites") == 0) {
        level = AK_TRACK_SITES;
    } else if (value != NULL && strcmp(value, "stacks") == 0) {
        level = AK_TRACK_SITES;
        say("allokit: ALLOKIT_TRACK=stacks is not in this version; using sites\n");
    } else if (value != NULL && strcmp(value, "off") != 0 && !bug("unknown_value_unsaid")) {
        say("allokit: ALLOKIT_TRACK=%s is not known; valid: off, sites, stacks\n", value);
    }
    value = getenv("ALLOKIT_POLICY");
    if (value != NULL && strcmp(value, "report") == 0) {
        policy = AK_POLICY_REPORT;
    } else if (value != NULL && strcmp(value, "quiet") == 0) {
        policy = AK_POLICY_QUIET;
    } else if (value != NULL && strcmp(value, "abort") != 0) {
        say("allokit: ALLOKIT_POLICY=%s is not known; valid: abort, report, quiet\n", value);
    }
    value = getenv("ALLOKIT_BACKEND");
    if (value != NULL && strcmp(value, ak_backend_name()) != 0)
        say("allokit: ALLOKIT_BACKEND=%s is ignored: this library holds only %s\n", value, ak_backend_name());
    value = getenv("ALLOKIT_LEAKS");
    if (value != NULL && strcmp(value, "0") != 0 && strcmp(value, "1") != 0)
        say("allokit: ALLOKIT_LEAKS=%s is not known; valid: 0, 1, text, json, lines (each but 0 may be followed by :path)\n", value);
    value = getenv("ALLOKIT_STATS");
    if (value != NULL && strncmp(value, "text", 4) != 0 && strncmp(value, "json", 4) != 0 && strncmp(value, "prometheus", 10) != 0 &&
        strncmp(value, "openmetrics", 11) != 0)
        say("allokit: ALLOKIT_STATS=%s is not known; valid: text, json, prometheus, openmetrics, each with :path\n", value);
    if (bug("child_starts_untracked")) pthread_atfork(NULL, NULL, reset_counters);
    if (!bug("fork_with_the_lock")) pthread_atfork(lock_take, lock_give, lock_give);
    pthread_key_create(&end_key, mark_thread_ended);
}
__attribute__((constructor(101))) static void start_at_load(void) { start(); }
__attribute__((destructor(65535))) static void end_at_exit(void) { at_end(); }

static bool tracked(void) {
    start();
    used = true;
    if (bug("unusable_in_tls_destructors")) {
        if (thread_ended) abort();
        pthread_setspecific(end_key, &end_key);
    }
    if (bug("unusable_after_main") && ended) abort();
    return level == AK_TRACK_SITES;
}

static record_t **bucket(const void *block) { return &table[((uintptr_t)block >> 4) * 2654435761u % BUCKETS]; }
static record_t *find(const void *block) {
    for (record_t *record = *bucket(block); record != NULL; record = record->next)
        if (record->block == block) return record;
    return NULL;
}
/* Whether tracking was switched while the program ran: then a block without a record is one from a time without. */
static bool switched;
static bool is_known(const void *block) {
    if (!switched) return tracked();
    lock_take();
    record_t *record = find(block);
    bool known = record != NULL && record->live && !(level == AK_TRACK_OFF && bug("free_while_off_unseen"));
    lock_give();
    return known;
}
static void forget(record_t *record) {
    record_t **where = bucket(record->block);
    while (*where != record) where = &(*where)->next;
    *where = record->next;
    for (size_t i = 0; i < 1024; i++)
        if (graves[i] == record) graves[i] = NULL;
    free(record);
}

static void count(int which, size_t bytes) {
    static pthread_t first;
    if (first == 0) first = pthread_self();
    if (bug("counts_of_threads_lost") && !pthread_equal(first, pthread_self())) return;
    counters[which]++;
    counters[which + 2] += bytes;
    counters[4] = which == 0 ? counters[4] + bytes : counters[4] - bytes;
    if (counters[4] > counters[5] && !bug("peak_unknown")) counters[5] = counters[4];
}

static bool remember(void *block, size_t size, const place_t *place) {
    if (!tracked()) return true;
    lock_take();
    record_t *old = find(block);
    if (old != NULL) forget(old);
    record_t *record = (record_t *)calloc(1, sizeof *record);
    if (record == NULL) {
        lock_give();
        return false;
    }
    record->block = (char *)block;
    record->size = size;
    record->live = true;
    record->allocated = *place;
    if (bug("same_site_for_all")) record->allocated.line = 1, record->allocated.address = NULL;
    record->number = counters[0];
    record->thread = pthread_self();
    record->next = *bucket(block);
    *bucket(block) = record;
    count(0, size);
    lock_give();
    return true;
}

/* ---- wrong frees ---------------------------------------------------------------------------------------------------- */

static void fault(const char *text) {
    faults++;
    if (bug("wrong_frees_unseen")) faults--;
    if (policy == AK_POLICY_QUIET || bug("wrong_frees_unseen")) return;
    if (policy == AK_POLICY_REPORT || bug("never_aborts")) {
        say("%s", text);
        return;
    }
    say("%sallokit: aborting (ALLOKIT_POLICY=report goes on)\n", text);
    abort();
}

enum { FREE, REALLOC, USABLE };

/* The live record of a block, or NULL after the fault has been reported. */
static record_t *demand(const void *ptr, int what, const place_t *now) {
    static const char *const names[] = {"free of", "realloc of", "usable size of"};
    static const char *const acts[] = {"freed at    ", "resized at  ", "asked at    "};
    char here[200], there[200], freed[200], text[1000];
    lock_take();
    record_t *record = find(ptr);
    if (record != NULL && record->live) {
        lock_give();
        return record;
    }
    place_print(here, sizeof here, now);
    if (record != NULL) {
        place_print(there, sizeof there, &record->allocated);
        place_print(freed, sizeof freed, &record->freed);
        if (what == FREE)
            snprintf(text, sizeof text, "allokit: double free of %p, a block of %zu bytes\n  allocated at %s\n  freed at     %s\n  freed again  %s\n",
                     ptr, record->size, there, freed, here);
        else
            snprintf(text, sizeof text, "allokit: %s %p, a block of %zu bytes that is already freed\n  allocated at %s\n  freed at     %s\n  %s %s\n",
                     names[what], ptr, record->size, there, freed, acts[what], here);
    } else {
        record_t *around = NULL;
        for (int i = 0; i < BUCKETS && around == NULL; i++)
            for (record = table[i]; record != NULL; record = record->next)
                if (record->live && record->block < (const char *)ptr && record->block + record->size > (const char *)ptr) around = record;
        if (around != NULL) {
            place_print(there, sizeof there, &around->allocated);
            snprintf(text, sizeof text, "allokit: %s %p, which is %zu bytes into a block of %zu bytes at %p\n  allocated at %s\n  %s %s\n", names[what],
                     ptr, (size_t)((const char *)ptr - around->block), around->size, (void *)around->block, there, acts[what], here);
        } else {
            snprintf(text, sizeof text, "allokit: %s %p, which is no live block of this allocator\n  %s %s\n", names[what], ptr, acts[what], here);
        }
    }
    lock_give();
    fault(text);
    return NULL;
}

/* ---- blocks --------------------------------------------------------------------------------------------------------- */

static void *fail(int error) {
    errno = bug("errno_unset") ? 0 : error;
    return NULL;
}

/* ---- a limit, failures on purpose ---------------------------------------------------------------------------------- */

static size_t limit_bytes, held;
static uint64_t fail_n, fail_times = 1, fail_seen, fail_count, fail_seed;
static uint32_t fail_rate;
static ak_fail_filter_t only;
static char only_file[256], only_function[256];

static bool charge(void *block) {
    size_t bytes = malloc_usable_size(block), sum = __atomic_add_fetch(&held, bytes, __ATOMIC_RELAXED);
    if (limit_bytes == 0 || sum <= limit_bytes || bug("limit_ignored")) return true;
    __atomic_sub_fetch(&held, bytes, __ATOMIC_RELAXED);
    free(block);
    return false;
}

static bool ends_with(const char *path, const char *end) {
    size_t length = strlen(path), wanted = strlen(end);
    return wanted <= length && strcmp(path + length - wanted, end) == 0 &&
           (wanted == length || path[length - wanted - 1] == '/');
}

static bool refuses(size_t size, const place_t *place) {
    if ((fail_n == 0 && fail_rate == 0) || (bug("realloc_never_fails") && size == 5000)) return false;
    if (only.struct_size != 0) {
        if (size < only.min_size || (only.max_size != 0 && size > only.max_size)) return false;
        if (only.line != 0 && only.line != place->line && !bug("filter_without_lines")) return false;
        if (only.file != NULL && !ends_with(place->file, only_file)) return false;
        if (only.function != NULL && strcmp(place->function, only_function) != 0) return false;
    }
    uint64_t number = __atomic_add_fetch(&fail_seen, 1, __ATOMIC_RELAXED);
    uint64_t mixed = ((bug("seed_ignored") ? 1 : fail_seed) * 1000003 + number) * 0x9e3779b97f4a7c15;
    bool fails = (fail_n != 0 && number >= fail_n && number - fail_n < fail_times) || (mixed >> 20) % 1000000 < fail_rate;
    if (fails) __atomic_add_fetch(&fail_count, 1, __ATOMIC_RELAXED);
    return fails;
}

bool ak_limit_set(size_t bytes) {
    limit_bytes = bytes;
    return true;
}
size_t ak_limit_get(void) { return limit_bytes; }
size_t ak_limit_used(void) { return held; }
bool ak_fail_nth(uint64_t n) {
    fail_n = n;
    if (n == 0 && bug("failures_stay")) fail_n = 1, fail_times = UINT64_MAX;
    fail_seen = fail_count = 0;
    return true;
}
bool ak_fail_rate(uint32_t per_million, uint64_t seed) {
    if (per_million > 1000000) {
        errno = EINVAL;
        return false;
    }
    fail_rate = per_million;
    fail_seed = seed;
    fail_seen = fail_count = 0;
    return true;
}
bool ak_fail_only(const ak_fail_filter_t *filter) {
    memset(&only, 0, sizeof only);
    fail_times = 1;
    fail_seen = fail_count = 0;
    if (filter == NULL) return true;
    if ((filter->file != NULL && strlen(filter->file) > 255) || (filter->function != NULL && strlen(filter->function) > 255)) {
        errno = EINVAL;
        return false;
    }
    only = *filter;
    if (only.file != NULL) strcpy(only_file, only.file);
    if (only.function != NULL) strcpy(only_function, only.function);
    if (only.times > 1) fail_times = only.times;
    return true;
}
uint64_t ak_fail_seen(void) { return fail_seen; }
uint64_t ak_fail_count(void) { return fail_count; }

/* As far as the tests set it. */
static void read_failures(void) {
    const char *value = getenv("ALLOKIT_LIMIT");
    char *end;
    if (value != NULL && !bug("environment_of_limits_unread")) {
        limit_bytes = strtoul(value, &end, 10) << 20;
        if (strcmp(end, "M") != 0) say("allokit: ALLOKIT_LIMIT=%s is not known; valid: a number of bytes, such as 512M\n", value);
    }
    if ((value = getenv("ALLOKIT_FAIL_NTH")) != NULL) {
        fail_n = strtoul(value, &end, 10);
        if (*end == '+') fail_times = UINT64_MAX;
    }
    if ((value = getenv("ALLOKIT_FAIL_ONLY")) != NULL) {
        only.struct_size = sizeof only;
        if (sscanf(value, "%zu-%zu", &only.min_size, &only.max_size) != 2) {
            fail_n = 0;
            say("allokit: ALLOKIT_FAIL_ONLY=%s is not known; valid: file.c, file.c:line, function, module+0x12, min-max; several with commas\n", value);
        }
    }
}

static char shared_zero[16] __attribute__((aligned(16)));

static void *raw_alloc(size_t size, size_t alignment) {
    if (size > PTRDIFF_MAX) return fail(ENOMEM);
    if (alignment == 0 || ((alignment & (alignment - 1)) != 0 && !bug("any_alignment")) ||
        (alignment > (size_t)1 << 30 && !bug("any_alignment")))
        return fail(EINVAL);
    if (size == 0 && bug("zero_is_null")) return NULL;
    if (size == 0 && bug("zero_is_shared")) return shared_zero;
    if (bug("small_unaligned") && size <= 8 && alignment <= 16) {
        char *block = (char *)malloc(size + 24);
        return block == NULL ? NULL : block + 8;
    }
    if (bug("alignment_up_to_a_page") && alignment > 4096) alignment = 4096;
    if (bug("alignment_up_to_512_mib") && alignment > (size_t)512 << 20) alignment = 4096;
    void *block = NULL;
    if (alignment <= 16 || (alignment & (alignment - 1)) != 0) {
        block = malloc(size);
    } else if (posix_memalign(&block, alignment, size) != 0) {
        block = NULL;
    }
    if (bug("mapping_for_each_block") && size >= 65536 && size < 100000)
        mprotect((void *)(((uintptr_t)block + 8192) & ~(uintptr_t)4095), 4096, PROT_READ | PROT_WRITE | PROT_EXEC);
    if (block == NULL && bug("aborts_without_memory")) abort();
    if (bug("blocks_overlap") && block != NULL && size >= 20 && size < 200) {
        static __thread char *last; /* every hundredth block begins inside another one */
        static __thread unsigned number;
        if (number++ % 100 == 0) last = (char *)block;
        else if (number % 100 == 50 && last != NULL && malloc_usable_size(last) >= size) return last;
    }
    return block == NULL || !charge(block) ? fail(ENOMEM) : block;
}

static pthread_t main_thread;
__attribute__((constructor(102))) static void note_main_thread(void) { main_thread = pthread_self(); }
static __attribute__((noinline)) void use_stack(void) {
    volatile char bytes[100000];
    for (size_t i = 0; i < sizeof bytes; i += 1000) bytes[i] = 1;
}
/* Whether atexit handlers run: this library's own, registered last, was the first of them. */
static bool exit_seen;
static void see_exit(void) { exit_seen = true; }
static bool exiting(void) {
    static int allocations;
    if (++allocations == 7) atexit(see_exit);
    return exit_seen;
}
static void *get(size_t size, size_t alignment, const place_t *place) {
    start();
    used = true;
    if (bug("deep_stack")) use_stack();
    if (bug("first_use_fails_late")) {
        static __thread bool seen;
        pthread_setspecific(end_key, &end_key);
        if (!seen && !pthread_equal(pthread_self(), main_thread)) return fail(ENOMEM);
        seen = true;
    }
    if (bug("unusable_in_atexit") && exiting()) abort();
    if (bug("unusable_after_main")) {
        static int allocations; /* registered by the program's first use: after what runs its destructors */
        if (++allocations == 2) atexit(set_ended);
    }
    if (bug("unusable_in_cxx_destructors")) {
        static __thread int allocations;
        if (++allocations == 3) __cxa_thread_atexit_impl(mark_thread_ended, NULL, &__dso_handle);
        if (thread_ended) abort();
    }
    if (bug("writes_into_others")) {
        static __thread char *last;
        static __thread unsigned number;
        if (++number % 100 == 0 && last != NULL) last[malloc_usable_size(last) - 9] ^= 1, last[40] ^= 1;
        last = NULL;
        if (number % 100 == 99 && size > 64 && size < 1000) last = (char *)raw_alloc(size, 16);
        if (last != NULL) {
            remember(last, size, place);
            return last;
        }
    }
    if (size <= PTRDIFF_MAX && alignment != 0 && (alignment & (alignment - 1)) == 0 && refuses(size, place)) return fail(ENOMEM);
    if (bug("global_initialisers_fail") && size == 4242) return NULL;
    if (bug("unusable_from_plugins")) {
        Dl_info info;
        if (strstr(place->file, "plugin.c") != NULL) return fail(ENOMEM);
        if (place->address != NULL && dladdr(place->address, &info) != 0 && strstr(info.dli_fname, "plugin") != NULL)
            return fail(ENOMEM);
    }
    void *block = raw_alloc(size, alignment);
    if (block != NULL && !remember(block, size, place)) {
        free(block);
        return fail(ENOMEM);
    }
    return block;
}

static void *get_zeroed(size_t number, size_t size, size_t alignment, const place_t *place) {
    size_t bytes = number * size;
    if (!bug("product_unchecked") && size != 0 && number > PTRDIFF_MAX / size) {
        if (alignment == 0 || (alignment & (alignment - 1)) != 0 || alignment > (size_t)1 << 30) return fail(EINVAL);
        return fail(ENOMEM);
    }
    void *block = get(bytes, alignment, place);
    if (block != NULL && !bug("calloc_not_zeroed") && !(bug("new_not_zeroed_wide") && alignment > 16)) memset(block, 0, bytes);
    if (block != NULL && bug("calloc_zeroes_start")) memset(block, 0, bytes < 4096 ? bytes : 4096), memset((char *)block + (bytes < 4096 ? bytes : 4096), 1, bytes < 4096 ? 0 : bytes - 4096);
    return block;
}

static void raw_free(void *block) {
    if (block == shared_zero || bug("blocks_overlap")) return;
    if ((uintptr_t)block % 16 == 8) block = (char *)block - 8;
    if (bug("memory_kept") && malloc_usable_size(block) > 0) {
        return;
    }
    int saved = errno;
    static unsigned frees;
    __atomic_sub_fetch(&held, malloc_usable_size(block), __ATOMIC_RELAXED);
    free(block);
    if (__atomic_add_fetch(&frees, 1, __ATOMIC_RELAXED) % 10000 == 0) malloc_trim(0);
    errno = bug("free_sets_errno") ? EPERM : saved;
}

static void put(void *block, const place_t *place, size_t known_size, bool size_is_known) {
    if (block == NULL) return;
    bool tracks = is_known(block);
    static pthread_t first;
    if (first == 0) first = pthread_self();
    if (bug("remote_frees_dropped") && !pthread_equal(first, pthread_self())) return;
    if (tracks) {
        record_t *record = demand(block, FREE, place);
        if (record == NULL) return;
        if (size_is_known && bug("size_unchecked_wrongly")) known_size &= ~(size_t)7;
        if (size_is_known && known_size != record->size && !bug("size_unchecked")) {
            char here[200], there[200], text[600];
            place_print(here, sizeof here, place);
            place_print(there, sizeof there, &record->allocated);
            snprintf(text, sizeof text, "allokit: free of %p with size %zu, but the block has %zu bytes\n  allocated at %s\n  freed at     %s\n", block,
                     known_size, record->size, there, here);
            fault(text);
        }
        lock_take();
        record->live = false;
        record->freed = *place;
        if (bug("freed_site_lost")) record->freed = record->allocated;
        count(1, record->size);
        if (graves[grave % 1024] != NULL) forget(graves[grave % 1024]);
        graves[grave++ % 1024] = record;
        lock_give();
    }
    raw_free(block);
}

static size_t usable(const void *block) {
    size_t bytes = malloc_usable_size((char *)(uintptr_t)block - ((uintptr_t)block % 16 == 8 ? 8 : 0));
    return bug("usable_too_small") ? bytes / 2 : bug("usable_too_large") ? bytes + 64 : bytes;
}

static void *resize(void *ptr, size_t number, size_t size, size_t alignment, const place_t *place) {
    size_t bytes = number * size;
    if (alignment == 0 || (alignment & (alignment - 1)) != 0 || alignment > (size_t)1 << 30) return fail(EINVAL);
    if (size != 0 && number > PTRDIFF_MAX / size && !bug("product_unchecked")) return fail(ENOMEM);
    if (ptr == NULL) return get(bytes, alignment, place);
    size_t old = 0;
    if (is_known(ptr)) {
        record_t *record = demand(ptr, REALLOC, place);
        if (record == NULL) return fail(EINVAL);
        old = record->size;
    } else {
        old = usable(ptr);
    }
    if (bytes == 0) {
        if (bug("realloc_zero_keeps")) return NULL;
        put(ptr, place, 0, false);
        return bug("realloc_zero_allocates") ? get(1, 16, place) : NULL;
    }
    if (bug("resize_loses_alignment")) alignment = 16;
    if (bug("failed_realloc_frees") && bytes > (size_t)1 << 46) put(ptr, place, 0, false);
    if (bug("failed_realloc_counts") && bytes > (size_t)1 << 46) counters[0]++;
    void *block = get(bytes, alignment, place);
    if (block == NULL) return NULL;
    size_t kept = old < bytes ? old : bytes;
    if (bug("realloc_copies_less")) kept = kept > 40 ? kept - 8 : kept;
    memcpy(block, ptr, kept);
    put(ptr, place, 0, false);
    return block;
}

static void *copy(const void *from, size_t bytes, const place_t *place) {
    char *block = (char *)get(bytes, 16, place);
    if (block != NULL && bytes != 0) memcpy(block, from, bytes);
    return block;
}
static char *copy_text(const char *s, size_t n, const place_t *place) {
    if (s == NULL) return (char *)fail(bug("null_copy_errno") ? 0 : EINVAL);
    size_t length = n == SIZE_MAX ? strlen(s) : strnlen(s, n);
    char *block = (char *)get(length + 1, 16, place);
    if (block == NULL) return NULL;
    memcpy(block, s, length);
    block[length] = bug("copy_not_ended") ? 'x' : 0;
    return block;
}

/* ---- the functions of the header: each plain, with file and line, with a record --------------------------------------- */

#define HERE place_t place = place_of(NULL, NULL, 0, __builtin_return_address(0))
#define AT place_t place = place_of(file, NULL, line, __builtin_return_address(0))
#define SITE                                                                                                           \
    place_t place = place_of(site == NULL ? NULL : site->file, site == NULL ? NULL : site->function,                   \
                             site == NULL ? 0 : site->line, __builtin_return_address(0))
#define FAMILY(type, name, parameters, at_parameters, site_parameters, expression)                                     \
    type name parameters { HERE; expression; }                                                                         \
    type name##_at at_parameters { AT; expression; }                                                                   \
    type name##_site site_parameters { SITE; expression; }
#define P(...) (__VA_ARGS__)
#define PA(...) (__VA_ARGS__, const char *file, uint32_t line)
#define PS(...) (__VA_ARGS__, ak_site_t *site)
#define ALL(type, name, expression, ...) FAMILY(type, name, P(__VA_ARGS__), PA(__VA_ARGS__), PS(__VA_ARGS__), expression)

ALL(void *, ak_alloc, return get(size, 16, &place), size_t size)
ALL(void *, ak_calloc, return get_zeroed(count, size, 16, &place), size_t count, size_t size)
ALL(void *, ak_alloc_aligned, return get(size, alignment, &place), size_t size, size_t alignment)
ALL(void *, ak_calloc_aligned, return get_zeroed(count, size, alignment, &place), size_t count, size_t size, size_t alignment)
ALL(void *, ak_realloc, return resize(ptr, 1, size, 16, &place), void *ptr, size_t size)
ALL(void *, ak_reallocarray, return resize(ptr, count, size, 16, &place), void *ptr, size_t count, size_t size)
ALL(void *, ak_reallocarray_aligned, return resize(ptr, count, size, alignment, &place), void *ptr, size_t count, size_t size, size_t alignment)
ALL(void, ak_free, put(ptr, &place, 0, false), void *ptr)
ALL(void, ak_free_sized, put(ptr, &place, size, true), void *ptr, size_t size)
ALL(char *, ak_strdup, return copy_text(s, SIZE_MAX, &place), const char *s)
ALL(char *, ak_strndup, return copy_text(s, n, &place), const char *s, size_t n)
ALL(void *, ak_memdup, return p == NULL && n != 0 ? fail(EINVAL) : copy(p, n, &place), const void *p, size_t n)

static size_t usable_of(const void *ptr, const place_t *place) {
    if (ptr == NULL) return 0;
    if (is_known(ptr) && demand(ptr, USABLE, place) == NULL) return 0;
    return usable(ptr);
}
ALL(size_t, ak_usable_size, return usable_of(ptr, &place), const void *ptr)
const char *ak_version(void) { return bug("wrong_version") ? "0.0.0" : REFERENCE_VERSION; }
uint32_t ak_abi_version(void) { return AK_ABI_VERSION; }
const char *ak_backend_name(void) { return "native"; } /* the name under which every check is made */

/* ---- statistics ----------------------------------------------------------------------------------------------------- */

static ak_stats_t stats_now(void) {
    ak_stats_t stats;
    memset(&stats, 0, sizeof stats);
    struct mallinfo2 info = mallinfo2();
    stats.known = bug("committed_unknown") ? 0 : AK_KNOWN_RESERVED_BYTES | AK_KNOWN_COMMITTED_BYTES;
    if (bug("committed_unmoved")) info.arena = 0, info.hblkhd = 4096;
    if (bug("committed_unknown")) info.arena = 0, info.hblkhd = 0;
    stats.reserved_bytes = stats.committed_bytes = info.arena + info.hblkhd;
    if (level == AK_TRACK_SITES) {
        lock_take();
        stats.known |= 63;
        memcpy(&stats.alloc_count, counters, sizeof counters);
        lock_give();
    }
    if (bug("unknown_not_zero")) stats.threads = 7;
    return stats;
}

bool ak_stats_get(ak_stats_t *st) {
    if (st == NULL || (st->struct_size < 16 && !bug("any_struct_size"))) {
        errno = EINVAL;
        return false;
    }
    size_t size = st->struct_size / 8 * 8;
    if (size > sizeof *st || bug("struct_overrun")) size = sizeof *st;
    ak_stats_t stats = stats_now();
    stats.struct_size = size;
    memcpy(st, &stats, size);
    return true;
}

static const char *const names[] = {"alloc_count",    "free_count",      "alloc_bytes",       "free_bytes", "current_bytes", "peak_bytes",
                                    "reserved_bytes", "committed_bytes", "mapped_peak_bytes", "threads"};

static void emit(ak_write_fn write, void *arg, const char *format, ...) {
    char text[1000];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    write(text, (size_t)length, arg);
}

bool ak_stats_write(ak_format_t format, ak_write_fn write, void *arg) {
    if (write == NULL && bug("formats_unchecked")) return true;
    if (write == NULL || (unsigned)format > AK_OPENMETRICS) {
        errno = EINVAL;
        return false;
    }
    start();
    ak_stats_t stats = stats_now();
    const uint64_t *fields = &stats.alloc_count;
    if (format == AK_TEXT) {
        emit(write, arg, "allokit %s, backend %s, tracking %s\n", ak_version(), bug("text_names_no_backend") ? "?" : ak_backend_name(),
             level == AK_TRACK_SITES ? "sites" : "off");
        char shown[10][32];
        for (int i = 0; i < 10; i++) {
            if ((stats.known >> i & 1) != 0) snprintf(shown[i], 32, "%" PRIu64, fields[i]);
            else snprintf(shown[i], 32, bug("made_up_zeros") ? "0" : "unknown");
        }
        char live[32] = "unknown";
        if (level == AK_TRACK_SITES) snprintf(live, 32, "%" PRIu64, fields[0] - fields[1]);
        static const char *const rows[] = {"peak", "reserved", "committed", "mapped peak"};
        emit(write, arg, "  %-11s%9s blocks%13s bytes\n", "allocated", shown[0], shown[2]);
        emit(write, arg, "  %-11s%9s blocks%13s bytes\n", "freed", shown[1], shown[3]);
        emit(write, arg, "  %-11s%9s blocks%13s bytes\n", "live", live, shown[4]);
        for (int i = 0; i < 4; i++) emit(write, arg, "  %-11s%29s bytes\n", rows[i], shown[5 + i]);
        emit(write, arg, "  %-11s%9s\n", "threads", shown[9]);
    } else if (format == AK_JSON) {
        if (bug("writer_under_the_lock")) lock_take();
        emit(write, arg, "{\"allokit\":\"%s\",\"backend\":\"%s\",\"tracking\":\"%s\",\"stats\":{", ak_version(), ak_backend_name(),
             level == AK_TRACK_SITES ? "sites" : "off");
        for (int i = 0; i < 10; i++) {
            if ((stats.known >> i & 1) != 0 || bug("made_up_zeros")) emit(write, arg, "%s\"%s\":%" PRIu64, i == 0 ? "" : ",", names[i], fields[i]);
            else emit(write, arg, "%s\"%s\":null", i == 0 ? "" : ",", names[i]);
        }
        emit(write, arg, bug("json_unbalanced") ? "}\n" : "}}\n");
    } else {
        for (int i = 0; i < 10; i++) {
            if ((stats.known >> i & 1) == 0 && !bug("made_up_zeros")) continue;
            const char *total = i < 4 ? "_total" : "";
            /* OpenMetrics names the family, without the suffix, and its unit. */
            const char *of_family = format == AK_OPENMETRICS ? "" : total;
            emit(write, arg, "# HELP allokit_%s%s reference\n# TYPE allokit_%s%s %s\n", names[i], of_family, names[i], of_family,
                 i < 4 && !bug("all_gauges") ? "counter" : "gauge");
            if (format == AK_OPENMETRICS && strstr(names[i], "_bytes") != NULL && !bug("no_units")) emit(write, arg, "# UNIT allokit_%s bytes\n", names[i]);
            emit(write, arg, "allokit_%s%s{backend=\"%s\"} %" PRIu64 "\n", names[i], total, ak_backend_name(), fields[i]);
        }
        if (format == AK_OPENMETRICS) emit(write, arg, "# EOF\n");
    }
    return true;
}

static void to_file(const char *text, size_t length, void *file) { fwrite(text, 1, length, (FILE *)file); }
void ak_stats_print(void) { ak_stats_write(AK_TEXT, to_file, bug("prints_to_stdout") ? stdout : stderr); }

/* ---- tracking ------------------------------------------------------------------------------------------------------- */

bool ak_track_set(ak_track_t wanted) {
    start();
    int error = 0;
    if ((unsigned)wanted > AK_TRACK_STACKS) error = EINVAL;
    else if ((int)wanted != level && used && bug("track_set_too_late")) error = EBUSY;
    if (error != 0) {
        errno = error;
        return false;
    }
    if ((int)wanted != level && used) {
        switched = true;
        if (wanted == AK_TRACK_OFF && bug("switch_forgets"))
            for (int i = 0; i < BUCKETS; i++)
                for (record_t *record = table[i]; record != NULL; record = record->next) record->live = false;
    }
    level = (int)wanted;
    return true;
}
ak_track_t ak_track_get(void) {
    start();
    return (ak_track_t)level;
}

typedef struct group {
    char place[200];
    size_t blocks, bytes;
} group_t;
static int by_bytes(const void *a, const void *b) {
    size_t x = ((const group_t *)a)->bytes, y = ((const group_t *)b)->bytes;
    return (x < y) - (x > y);
}

static size_t list(const char *context, uint64_t since, bool print) {
    static group_t groups[4096];
    size_t used_groups = 0, blocks = 0, bytes = 0;
    lock_take();
    for (int i = 0; i < BUCKETS; i++)
        for (record_t *record = table[i]; record != NULL; record = record->next) {
            if (bug("blocks_of_threads_unlisted") && !pthread_equal(record->thread, pthread_self())) continue;
            if (!record->live || (record->number < since && !bug("mark_ignored"))) continue;
            char place[200];
            place_print(place, sizeof place, &record->allocated);
            size_t g = 0;
            while (g < used_groups && strcmp(groups[g].place, place) != 0) g++;
            if (g == used_groups && used_groups < (bug("few_sites") ? 1000 : 4095)) {
                memset(&groups[g], 0, sizeof groups[g]);
                memcpy(groups[g].place, place, sizeof place);
                used_groups++;
            }
            groups[g].blocks++;
            groups[g].bytes += record->size;
            blocks++;
            bytes += record->size;
        }
    lock_give();
    if (!print) return blocks;
    if (blocks == 0) {
        if (context == NULL) say("allokit: no live blocks\n");
        return 0;
    }
    qsort(groups, used_groups, sizeof groups[0], by_bytes);
    for (size_t i = 0; bug("leaks_smallest_first") && i < used_groups / 2; i++) {
        group_t other = groups[i];
        groups[i] = groups[used_groups - 1 - i];
        groups[used_groups - 1 - i] = other;
    }
    say(context == NULL ? "allokit: %s%zu live blocks, %zu bytes, from %zu call sites\n"
                        : "allokit: %s: %zu blocks, %zu bytes, live since the mark, from %zu call sites\n",
        context == NULL ? "" : context, blocks, bytes, used_groups);
    say("           count         bytes  call site\n");
    for (size_t i = 0; i < used_groups; i++) say("  %14zu  %12zu  %s\n", groups[i].blocks, groups[i].bytes, groups[i].place);
    return blocks;
}

#define OFF_TEXT "tracking is off (set ALLOKIT_TRACK=sites before the program starts)\n"
size_t ak_leaks_print(void) {
    start();
    if (level == AK_TRACK_SITES && bug("leak_of_its_own") && find(&lock) == NULL) {
        place_t place = place_of("reference.c", NULL, 1, NULL);
        remember(&lock, 8, &place);
    }
    if (level == AK_TRACK_SITES || switched) return list(NULL, 0, true);
    say("allokit: leaks are unknown: " OFF_TEXT);
    return 0;
}
void ak_mark(void) { marked = counters[0]; }
bool ak_assert_balanced(const char *context) {
    start();
    if (context == NULL) context = "assert_balanced";
    if (level != AK_TRACK_SITES && bug("balance_made_up")) return true;
    if (level != AK_TRACK_SITES) {
        say("allokit: %s: balance is unknown: " OFF_TEXT, context);
        return true;
    }
    if (list(context, marked, policy != AK_POLICY_QUIET) == 0) return true;
    if (policy == AK_POLICY_ABORT && !bug("never_aborts")) {
        say("allokit: aborting (ALLOKIT_POLICY=report goes on)\n");
        abort();
    }
    return false;
}
bool ak_policy_set(ak_policy_t wanted) {
    start();
    if ((unsigned)wanted > AK_POLICY_QUIET && !bug("policies_unchecked")) {
        errno = EINVAL;
        return false;
    }
    policy = wanted;
    return true;
}
ak_policy_t ak_policy_get(void) {
    start();
    return policy;
}
uint64_t ak_fault_count(void) { return faults; }
size_t ak_check(void) { return 0; }

static void at_end(void) {
    const char *leaks = getenv("ALLOKIT_LEAKS"), *stats = getenv("ALLOKIT_STATS");
    if (leaks != NULL && strcmp(leaks, "1") == 0 && !bug("nothing_at_exit")) ak_leaks_print();
    if (stats != NULL && !bug("nothing_at_exit")) {
        const char *path = strchr(stats, ':');
        FILE *file = path == NULL ? stderr : fopen(path + 1, "w");
        ak_format_t format = stats[0] == 'j' ? AK_JSON : stats[0] == 'p' ? AK_PROMETHEUS : stats[0] == 'o' ? AK_OPENMETRICS : AK_TEXT;
        if (file == NULL) {
            say("allokit: cannot write %s: %s\n", path + 1, strerror(errno));
        } else {
            ak_stats_write(format, to_file, file);
            fflush(file);
        }
    }
    ended = true;
}
