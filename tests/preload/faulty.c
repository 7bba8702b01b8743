/*
 * faulty.c - malloc and its family over libc's own, as simply as possible, with bugs on demand: PRELOAD_BUG=name. Each
 * case of cases.c must pass on it without a bug and fail with the one that mutants.txt names. Memory goes back through
 * malloc_trim, at each 64th free: libc itself keeps it.
 */
#define _GNU_SOURCE 1
#include <dlfcn.h>
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

extern void *__libc_malloc(size_t size);
extern void *__libc_memalign(size_t alignment, size_t size);
extern void *__libc_realloc(void *block, size_t size);
extern void __libc_free(void *block);
extern char **environ;

void free_sized(void *block, size_t size);
void free_aligned_sized(void *block, size_t alignment, size_t size);

/* Read once the environment is there, without a call that may allocate. */
static bool bug(const char *name) {
    static const char *value;
    if (value == NULL) {
        if (environ == NULL) return false;
        const char *found = "";
        for (char **entry = environ; *entry != NULL; entry++)
            if (strncmp(*entry, "PRELOAD_BUG=", 12) == 0) found = *entry + 12;
        value = found;
    }
    return strcmp(value, name) == 0;
}

static bool refused(size_t size, const char *unless) {
    if (size <= PTRDIFF_MAX) return false;
    if (!bug(unless)) errno = ENOMEM;
    return true;
}

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static void lock_up(void) {
    if (!bug("fork_lock") && !bug("fork_stops")) return;
    pthread_mutex_lock(&lock);
    for (volatile int i = 0; i < 300; i++) {
    }
    pthread_mutex_unlock(&lock);
}

static __thread bool gone;
static pthread_key_t gone_key;
static bool gone_key_made;
static void set_gone(void *unused) {
    (void)unused;
    gone = true;
}

static void *shifted(size_t size) {
    char *block = __libc_malloc(size + 32);
    return block == NULL ? NULL : block + 8;
}

__attribute__((noinline)) static void hungry(void) {
    volatile char room[64 << 10];
    for (size_t i = 0; i < sizeof room; i += 512) room[i] = 1;
}

void *malloc(size_t size) {
    if (refused(size, "malloc_errno")) return NULL;
    lock_up();
    if (size == 0 && bug("malloc_zero")) return NULL;
    if (size <= 8 && bug("align_8")) return shifted(size);
    if (size >= 4000 && bug("short_4000")) size = 64;
    if (bug("stack_hungry")) hungry();
    if (bug("header")) {
        char *whole = __libc_malloc(size + 16);
        if (whole == NULL) return NULL;
        memcpy(whole, "allocated here!", 16);
        return whole + 16;
    }
    if (size >= 100000 && bug("mapping_each")) {
        char *block = mmap(NULL, size + 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (block == MAP_FAILED) return NULL;
        mprotect(block, 4096, PROT_NONE);
        return block + 4096;
    }
    if (bug("tls_end")) {
        if (!gone_key_made) {
            gone_key_made = true;
            pthread_key_create(&gone_key, set_gone);
        }
        if (gone) return NULL;
        pthread_setspecific(gone_key, &gone_key_made);
    }
    if (bug("reserves")) {
        static bool reserved;
        if (!reserved) {
            reserved = true;
            if (mmap(NULL, (size_t)1 << 40, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0) == MAP_FAILED)
                _exit(5);
        }
    }
    void *block = __libc_malloc(size);
    if (block == NULL && bug("out_errno")) errno = 0;
    return block;
}

static pid_t main_process;
static void stop_all(void) { pthread_mutex_lock(&lock); }
static void go_on(void) { pthread_mutex_unlock(&lock); }
__attribute__((constructor)) static void begin(void) {
    main_process = getpid();
    if (bug("fork_stops")) pthread_atfork(stop_all, go_on, go_on);
}

static void after_free(size_t size) {
    static size_t freed;
    freed += size;
    if (freed > ((size_t)4 << 20) && !bug("keeps_memory")) {
        freed = 0;
        malloc_trim(0);
    }
}

void free(void *block) {
    int error = errno;
    if (block == NULL) {
        if (bug("null_free")) errno = EINVAL;
        return;
    }
    if (bug("header")) {
        if (memcmp((char *)block - 16, "allocated here!", 16) != 0) abort();
        return;
    }
    lock_up();
    if ((bug("leak_in_others") && gettid() != getpid()) || bug("leaks")) return;
    if (bug("leak_large") && malloc_usable_size(block) >= 100000) return;
    if (bug("dies_in_child") && getpid() != main_process) abort();
    if (bug("mapping_each") || (bug("align_8") && ((uintptr_t)block & 15) != 0)) return;
    after_free(malloc_usable_size(block));
    __libc_free(block);
    errno = bug("free_errno") ? EAGAIN : error;
}

void cfree(void *block) { free(block); }
void free_sized(void *block, size_t size) {
    (void)size;
    if (!bug("free_sized_leaks")) free(block);
}
void free_aligned_sized(void *block, size_t alignment, size_t size) {
    (void)alignment, (void)size;
    free(block);
}

void *calloc(size_t count, size_t size) {
    size_t bytes = 0;
    if (__builtin_mul_overflow(count, size, &bytes) && !bug("calloc_overflow")) {
        errno = ENOMEM;
        return NULL;
    }
    if (bytes == 0 && bug("calloc_zero")) return NULL;
    void *block = malloc(bytes);
    if (block != NULL && !bug("calloc_dirty")) memset(block, 0, bytes);
    return block;
}

void *realloc(void *block, size_t size) {
    if (block == NULL) return bug("realloc_null") ? NULL : malloc(size);
    if (refused(size, "realloc_errno")) {
        if (bug("realloc_frees")) free(block);
        return NULL;
    }
    if (size == 0) {
        if (bug("realloc_zero")) {
            free(block);
            return NULL;
        }
        size = 1;
    }
    if (bug("realloc_loses") || bug("realloc_copies") || bug("realloc_leaks")) {
        char *moved = malloc(size);
        size_t kept = malloc_usable_size(block);
        if (moved == NULL) return NULL;
        memcpy(moved, block, kept < size ? kept : size);
        if (bug("realloc_loses")) moved[size / 2] ^= 1;
        if (bug("realloc_leaks")) return moved;
        free(block);
        return moved;
    }
    return __libc_realloc(block, size);
}

void *reallocarray(void *block, size_t count, size_t size) {
    size_t bytes = 0;
    if (__builtin_mul_overflow(count, size, &bytes)) bytes = SIZE_MAX;
    return realloc(block, bytes);
}

static void *aligned(size_t alignment, size_t size) {
    if (refused(size, "aligned_errno")) return NULL;
    if (alignment > (size_t)1 << 40) {
        errno = ENOMEM;
        return NULL;
    }
    if (alignment > 64 && bug("align_64")) alignment = 64;
    if (alignment > ((size_t)32 << 20) && bug("align_32m")) alignment = 4096;
    if (alignment < 16) alignment = 16;
    return __libc_memalign(alignment, size);
}

void *memalign(size_t alignment, size_t size) {
    if (alignment > SIZE_MAX / 2 + 1) {
        errno = EINVAL;
        return NULL;
    }
    size_t power = 16;
    while (power < alignment) power *= 2;
    if (power != alignment && alignment > 16 && bug("memalign_strict")) return NULL;
    return aligned(power, size);
}

void *aligned_alloc(size_t alignment, size_t size) {
    if (alignment == 0 || (alignment & (alignment - 1)) != 0) {
        errno = bug("aligned_einval") ? ENOMEM : EINVAL;
        return NULL;
    }
    if (size == 0 && bug("aligned_zero")) return NULL;
    return aligned(alignment, size);
}

int posix_memalign(void **out, size_t alignment, size_t size) {
    int error = errno;
    if (alignment == 0 || (alignment & (alignment - 1)) != 0 || alignment % sizeof(void *) != 0) {
        if (!bug("posix_any_alignment")) return EINVAL;
        alignment = 16;
    }
    void *block = aligned(alignment, size);
    errno = block == NULL && !bug("posix_errno") ? ENOMEM : error;
    if (block == NULL) return ENOMEM;
    *out = block;
    return 0;
}

void *valloc(size_t size) { return aligned(bug("valloc_16") ? 16 : 4096, size); }
void *pvalloc(size_t size) {
    if (refused(size, "aligned_errno")) return NULL;
    return valloc(size == 0 ? 4096 : (size + 4095) / 4096 * 4096);
}

static size_t (*libc_usable)(void *);
size_t malloc_usable_size(void *block) {
    if (block == NULL) return 0;
    if (libc_usable == NULL) *(void **)&libc_usable = dlsym(RTLD_NEXT, "malloc_usable_size");
    if (bug("mapping_each") || bug("align_8")) return 16;
    return libc_usable(block) + (bug("usable_more") ? 64 : 0) - (bug("usable_less") ? 17 : 0);
}

int malloc_info(int options, FILE *stream) {
    if (options != 0 && !bug("info_options")) return EINVAL;
    fputs("<malloc version=\"1\">\n</malloc>\n", stream);
    return 0;
}

int malloc_trim(size_t pad) {
    static int (*libc_trim)(size_t);
    if (bug("no_trim")) return 0;
    if (libc_trim == NULL) *(void **)&libc_trim = dlsym(RTLD_NEXT, "malloc_trim");
    return libc_trim(pad);
}

char *strdup(const char *text) {
    size_t length = strlen(text) + 1;
    char *copy = malloc(length);
    if (copy == NULL) return NULL;
    memcpy(copy, text, length);
    return bug("strdup_static") ? (char *)(uintptr_t)text : copy;
}
