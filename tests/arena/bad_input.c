/* Bad input of arenas, regions, pools and stacks that is no fault: the call fails with errno and loses nothing, whatever the
 * policy. What is a fault has a program each in tests/misuse. docs/arenas.md has the table. */
#include "../conformance/check.h"

enum { FENCE = 64, ROOM = 2048 };

/* The buffer that is lent, with a fence on both sides. */
static unsigned char memory[FENCE + 16 + ROOM + FENCE];

static void fence(void) { memset(memory, 0xA5, sizeof memory); }

static void check_fence(size_t offset, size_t size) {
    for (size_t i = 0; i < sizeof memory; i++)
        if (i < FENCE + offset || i >= FENCE + offset + size)
            CHECK_MSG(memory[i] == 0xA5, "a buffer of %zu bytes at %zu: byte %zu was written", size, offset, i);
}

static void fill(void *p, size_t size) {
    CHECK(is_aligned(p, 16));
    memset(p, 0x11, size);
}

/* Every size from nothing on, at every alignment: too small is EINVAL, and what is large enough keeps to itself. */
TEST(buffers_of_every_size_and_alignment) {
    size_t made[4] = {0, 0, 0, 0};
    for (size_t size = 0; size <= ROOM; size += size < 1100 ? 1 : 97) {
        size_t offset = size % 17;
        void *buffer = memory + FENCE + offset;
        for (int kind = 0; kind < 4; kind++) {
            fence();
            errno = 0;
            void *p, *owner = NULL;
            if (kind == 0) {
                ak_arena_opts_t opts;
                memset(&opts, 0, sizeof opts);
                opts.struct_size = sizeof opts;
                opts.buffer = buffer;
                opts.buffer_size = size;
                opts.flags = AK_ARENA_FIXED;
                ak_arena_t *a = ak_arena_new(&opts);
                owner = a;
                while (a != NULL && (p = ak_arena_alloc(a, 24)) != NULL) fill(p, 24);
                if (a != NULL) CHECK(errno == ENOMEM && ak_arena_check(a) == 0);
                ak_arena_destroy(a);
            } else if (kind == 1) {
                ak_region_t *r = ak_region_from_buffer(buffer, size);
                owner = r;
                while (r != NULL && (p = ak_region_alloc(r, 24)) != NULL) fill(p, 24);
                if (r != NULL) CHECK(errno == ENOMEM && ak_region_check(r) == 0);
                ak_region_destroy(r);
            } else if (kind == 2) {
                ak_pool_opts_t opts;
                memset(&opts, 0, sizeof opts);
                opts.struct_size = sizeof opts;
                opts.buffer = buffer;
                opts.buffer_size = size;
                opts.flags = AK_POOL_FIXED;
                ak_pool_t *pool = ak_pool_new(24, &opts);
                owner = pool;
                while (pool != NULL && (p = ak_pool_take(pool)) != NULL) fill(p, 24);
                if (pool != NULL) CHECK(errno == ENOMEM && ak_pool_check(pool) == 0);
                ak_pool_destroy(pool);
            } else {
                ak_stack_opts_t opts;
                memset(&opts, 0, sizeof opts);
                opts.struct_size = sizeof opts;
                opts.buffer = buffer;
                ak_stack_t *s = ak_stack_new(size, &opts);
                owner = s;
                while (s != NULL && (p = ak_stack_push(s, 24)) != NULL) fill(p, 24);
                if (s != NULL) CHECK(errno == ENOMEM && ak_stack_check(s) == 0);
                ak_stack_destroy(s);
            }
            if (owner == NULL) CHECK_MSG(errno == EINVAL, "kind %d, %zu bytes: errno %d", kind, size, errno);
            /* Larger is never worse. (A different misalignment may take up to 15 bytes.) */
            if (owner == NULL) CHECK_MSG(made[kind] == 0 || size < made[kind] + 16, "kind %d, %zu bytes", kind, size);
            if (owner != NULL && made[kind] == 0) made[kind] = size;
            check_fence(offset, size);
        }
    }
    for (int kind = 0; kind < 4; kind++) CHECK(made[kind] > 0);
    CHECK(ak_fault_count() == 0);
}

TEST(alignments_that_are_none) {
    size_t wrong[5];
    wrong[0] = 3;
    wrong[1] = 24;
    wrong[2] = ((size_t)1 << 30) + 16;
    wrong[3] = (size_t)1 << 31; /* over the limit */
    wrong[4] = SIZE_MAX;
    ak_region_t *r = ak_region_new(10000);
    for (int i = 0; i < 5; i++) {
        size_t align = opaque_size(wrong[i]);
        ak_arena_opts_t arena;
        memset(&arena, 0, sizeof arena);
        arena.struct_size = sizeof arena;
        arena.alignment = align;
        ak_pool_opts_t pool;
        memset(&pool, 0, sizeof pool);
        pool.struct_size = sizeof pool;
        pool.alignment = align;
        ak_stack_opts_t stack;
        memset(&stack, 0, sizeof stack);
        stack.struct_size = sizeof stack;
        stack.alignment = align;
        errno = 0;
        CHECK(ak_arena_new(&arena) == NULL && errno == EINVAL);
        errno = 0;
        CHECK(ak_pool_new(24, &pool) == NULL && errno == EINVAL);
        errno = 0;
        CHECK(ak_stack_new(4000, &stack) == NULL && errno == EINVAL);
        errno = 0;
        CHECK(ak_region_alloc_aligned(r, 10, align) == NULL && errno == EINVAL);
        errno = 0;
        CHECK(ak_region_alloc_aligned(r, opaque_size(SIZE_MAX), align) == NULL && errno == EINVAL);
    }
    errno = 0;
    CHECK(ak_region_alloc_aligned(r, 10, opaque_size(0)) == NULL && errno == EINVAL);
    CHECK(ak_region_check(r) == 0 && ak_fault_count() == 0);
    ak_region_destroy(r);
}

TEST(null_owners) {
    ak_region_t *r = (ak_region_t *)opaque_pointer(NULL);
    ak_pool_t *p = (ak_pool_t *)opaque_pointer(NULL);
    ak_stack_t *s = (ak_stack_t *)opaque_pointer(NULL);
    ak_stack_mark_t mark;
    char byte = 0;
    memset(&mark, 0, sizeof mark);
#define NULL_IS_EINVAL(condition)                                                                                      \
    do {                                                                                                               \
        errno = 0;                                                                                                     \
        CHECK((condition) && errno == EINVAL);                                                                         \
    } while (0)
    NULL_IS_EINVAL(ak_region_alloc_aligned(r, 1, 64) == NULL);
    NULL_IS_EINVAL(ak_region_calloc(r, 1, 1) == NULL);
    NULL_IS_EINVAL(ak_region_realloc(r, NULL, 1) == NULL);
    NULL_IS_EINVAL(ak_region_scratch(r, 1) == NULL);
    NULL_IS_EINVAL(!ak_region_owns(r, &byte));
    NULL_IS_EINVAL(ak_region_check(r) != 0);
    NULL_IS_EINVAL(ak_pool_take(p) == NULL);
    NULL_IS_EINVAL((ak_pool_take)(p) == NULL);
    NULL_IS_EINVAL(ak_pool_check(p) != 0);
    NULL_IS_EINVAL((ak_pool_reset(p), true));
    NULL_IS_EINVAL(ak_stack_push(s, 1) == NULL);
    NULL_IS_EINVAL(!ak_stack_pop(s, &byte));
    NULL_IS_EINVAL(ak_stack_mark(s).ak_serial == 0);
    NULL_IS_EINVAL(!ak_stack_release(s, mark));
    NULL_IS_EINVAL(ak_stack_check(s) != 0);
    ak_region_reset(r);
    ak_region_reset_zero(r);
    ak_region_print(r);
    ak_region_destroy(r);
    ak_pool_destroy(p);
    ak_stack_destroy(s);
    CHECK(ak_fault_count() == 0);
}

TEST(impossible_options) {
    ak_arena_opts_t opts;
    memset(&opts, 0, sizeof opts);
    opts.struct_size = sizeof opts;
    opts.limit = 16; /* not even the arena itself */
    errno = 0;
    CHECK(ak_arena_new(&opts) == NULL && errno == ENOMEM);
    opts.limit = 0;
    opts.buffer = memory;
    opts.buffer_size = SIZE_MAX;
    errno = 0;
    CHECK(ak_arena_new(&opts) == NULL && errno == EINVAL);
    opts.buffer = NULL;
    opts.first_chunk = SIZE_MAX;
    opts.largest_chunk = SIZE_MAX;
    ak_arena_t *a = ak_arena_new(&opts);
    CHECK(ak_arena_alloc(a, 1) != NULL && ak_arena_check(a) == 0); /* in a chunk of the size that is to be had */
    ak_arena_destroy(a);
    errno = 0;
    CHECK(ak_pool_new(opaque_size(SIZE_MAX), NULL) == NULL && errno == ENOMEM);
    ak_pool_opts_t pool;
    memset(&pool, 0, sizeof pool);
    pool.struct_size = sizeof pool;
    pool.per_chunk = SIZE_MAX / 2; /* the product overflows */
    ak_pool_t *p = ak_pool_new(64, &pool);
    if (p != NULL) {
        errno = 0;
        CHECK(ak_pool_take(p) == NULL && errno == ENOMEM);
    }
    ak_pool_destroy(p);
    errno = 0;
    CHECK(ak_region_from_buffer(memory, opaque_size(SIZE_MAX)) == NULL && errno != 0);
    ak_region_t *r = ak_region_new(10000);
    errno = 0;
    CHECK(ak_region_child(r, opaque_size(SIZE_MAX)) == NULL && errno == ENOMEM);
    CHECK(ak_region_check(r) == 0 && ak_fault_count() == 0);
    ak_region_destroy(r);
}

static ak_arena_stats_t stats_of(ak_arena_t *a) {
    ak_arena_stats_t st;
    st.struct_size = sizeof st;
    CHECK(ak_arena_stats(a, &st));
    return st;
}

/* The same, and a call that must fail has lost nothing: the figures, and the block whose bytes are all 7. */
#define LOSES_NOTHING(a, call)                                                                                         \
    do {                                                                                                               \
        ak_arena_stats_t before = stats_of(a), after;                                                                  \
        errno = 0;                                                                                                     \
        CHECK((call) == NULL && errno == ENOMEM);                                                                      \
        after = stats_of(a);                                                                                           \
        CHECK(after.used_bytes == before.used_bytes && after.peak_bytes == before.peak_bytes);                         \
        CHECK(after.reserved_bytes == before.reserved_bytes && after.chunk_count == before.chunk_count);               \
        CHECK(ak_arena_check(a) == 0);                                                                                 \
    } while (0)

static void check_sevens(const char *p, size_t size) {
    for (size_t i = 0; i < size; i++) CHECK(p[i] == 7);
}

static void reach_the_limit(ak_arena_t *a) {
    char *block = (char *)ak_arena_alloc(a, 1000);
    CHECK(block != NULL);
    memset(block, 7, 1000);
    LOSES_NOTHING(a, ak_arena_realloc(a, block, 1000, 50000));           /* the newest, which would grow in place */
    LOSES_NOTHING(a, ak_arena_realloc(a, block, 1000, opaque_size(SIZE_MAX)));
    CHECK(ak_arena_alloc(a, 16) != NULL);
    LOSES_NOTHING(a, ak_arena_realloc(a, block, 1000, 50000));           /* an older one, which would move */
    LOSES_NOTHING(a, ak_arena_sprintf(a, "%050000d", 1));
    LOSES_NOTHING(a, ak_arena_calloc(a, 50, 1000));
    LOSES_NOTHING(a, ak_arena_memdup(a, opaque_pointer(block), opaque_size(1 << 20)));
    LOSES_NOTHING(a, ak_arena_alloc_aligned(a, 50000, 4096));
    check_sevens(block, 1000);
    /* And what fits still comes. */
    char *text = ak_arena_sprintf(a, "%d", 12345);
    CHECK(text != NULL && strcmp(text, "12345") == 0);
    block = (char *)ak_arena_realloc(a, block, 1000, 1200);
    CHECK(block != NULL);
    check_sevens(block, 1000);
    CHECK(ak_arena_check(a) == 0 && ak_fault_count() == 0);
}

TEST(limits_in_the_middle_of_a_call) {
    static char buffer[8000];
    ak_arena_opts_t opts;
    memset(&opts, 0, sizeof opts);
    opts.struct_size = sizeof opts;
    opts.limit = 20000;
    ak_arena_t *a = ak_arena_new(&opts);
    reach_the_limit(a);
    ak_arena_reset(a);
    reach_the_limit(a); /* with chunks that wait */
    ak_arena_destroy(a);
    opts.limit = 0;
    opts.buffer = buffer;
    opts.buffer_size = sizeof buffer;
    opts.flags = AK_ARENA_FIXED;
    a = ak_arena_new(&opts);
    reach_the_limit(a); /* the end of a buffer */
    ak_arena_destroy(a);
    opts.buffer = NULL;
    opts.flags = 0;
    opts.limit = 20000;
    ak_arena_t *parent = ak_arena_new(&opts);
    ak_arena_t *child = ak_arena_child(parent, NULL);
    CHECK(child != NULL);
    reach_the_limit(child); /* the parent's limit */
    ak_arena_destroy(parent);
    /* A block with a chunk of its own. */
    opts.limit = 400000;
    a = ak_arena_new(&opts);
    char *large = (char *)ak_arena_alloc(a, 100000);
    CHECK(large != NULL);
    memset(large, 7, 100000);
    LOSES_NOTHING(a, ak_arena_realloc(a, large, 100000, 900000));
    check_sevens(large, 100000);
    ak_arena_destroy(a);
}

TEST(limits_of_places) {
    ak_region_t *r = ak_region_new(10000);
    char *block = (char *)ak_region_alloc(r, 1000), *wall = (char *)ak_region_alloc(r, 16);
    CHECK(block != NULL && wall != NULL);
    memset(block, 7, 1000);
    size_t wanted[2];
    wanted[0] = 50000;
    wanted[1] = SIZE_MAX;
    for (int i = 0; i < 2; i++) {
        errno = 0;
        CHECK(ak_region_realloc(r, block, opaque_size(wanted[i])) == NULL && errno == ENOMEM);
        errno = 0;
        CHECK(ak_region_calloc(r, 1, opaque_size(wanted[i])) == NULL && errno == ENOMEM);
    }
    check_sevens(block, 1000);
    ak_region_free(wall);
    ak_region_free(block);
    CHECK(ak_region_check(r) == 0);
    ak_region_destroy(r);
    ak_stack_t *s = ak_stack_new(2000, NULL);
    block = (char *)ak_stack_push(s, 1000);
    CHECK(block != NULL);
    memset(block, 7, 1000);
    errno = 0;
    CHECK(ak_stack_push(s, 3000) == NULL && errno == ENOMEM && ak_stack_check(s) == 0);
    check_sevens(block, 1000);
    CHECK(ak_stack_pop(s, block) && ak_fault_count() == 0);
    ak_stack_destroy(s);
}

/* A parent ends with children that hold blocks, and children of theirs: no fault, and nothing is left. */
TEST(parents_with_live_children) {
    ak_mark();
    ak_arena_t *a = ak_arena_new(NULL), *one = ak_arena_child(a, NULL), *two = ak_arena_child(a, NULL);
    ak_arena_t *inner = ak_arena_child(one, NULL);
    CHECK(one != NULL && two != NULL && inner != NULL);
    CHECK(ak_arena_alloc(one, 100000) != NULL && ak_arena_alloc(two, 10) != NULL && ak_arena_alloc(inner, 5000) != NULL);
    ak_arena_destroy(a);
    ak_region_t *r = ak_region_new(50000), *child = ak_region_child(r, 20000), *grandchild = ak_region_child(child, 5000);
    CHECK(grandchild != NULL && ak_region_alloc(grandchild, 100) != NULL && ak_region_alloc(child, 100) != NULL);
    ak_region_destroy(r);
    CHECK(ak_fault_count() == 0);
    if (is_tracked()) CHECK(ak_assert_balanced("parents"));
}
