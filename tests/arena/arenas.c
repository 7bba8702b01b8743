/* Arenas and scratch: what arena.h promises, the bad inputs, and what the allocators that they replace got wrong. */
#include "../conformance/check.h"

#include <stdarg.h>

static ak_arena_stats_t stats_of(ak_arena_t *a) {
    ak_arena_stats_t st;
    st.struct_size = sizeof st;
    CHECK(ak_arena_stats(a, &st));
    CHECK(st.struct_size == sizeof st);
    return st;
}

static ak_arena_opts_t options(void) {
    ak_arena_opts_t opts;
    memset(&opts, 0, sizeof opts);
    opts.struct_size = sizeof opts;
    opts.name = "test";
    return opts;
}

static char *block_of(ak_arena_t *a, size_t size) {
    char *p = (char *)ak_arena_alloc(a, opaque_size(size));
    CHECK(p != NULL && is_aligned(p, 16));
    memset(p, (int)(size & 0x7f), size);
    return p;
}

/* Faults are to be counted and to do nothing. */
static uint64_t faults(void) {
    ak_policy_set(AK_POLICY_QUIET);
    return ak_fault_count();
}

TEST(arena_blocks) {
    ak_arena_t *a = ak_arena_new(NULL);
    char *blocks[500];
    CHECK(a != NULL);
    for (size_t i = 0; i < 500; i++) blocks[i] = block_of(a, i);
    for (size_t i = 0; i < 500; i++) {
        CHECK(ak_arena_owns(a, blocks[i]));
        for (size_t k = 0; k < i; k++) CHECK(blocks[i][k] == (char)(i & 0x7f));
    }
    CHECK(ak_arena_check(a) == 0);
    ak_arena_destroy(a);
    ak_arena_destroy(NULL);
}

TEST(arena_zero_sizes) {
    ak_arena_t *a = ak_arena_new(NULL);
    void *p = ak_arena_alloc(a, opaque_size(0)), *q = ak_arena_alloc(a, 0);
    CHECK(p != NULL && q != NULL && p != q);
    CHECK(ak_arena_calloc(a, 0, 10) != NULL && ak_arena_memdup(a, NULL, 0) != NULL);
    ak_arena_destroy(a);
}

TEST(arena_impossible_sizes) {
    ak_arena_t *a = ak_arena_new(NULL);
    block_of(a, 10);
    size_t used = stats_of(a).used_bytes;
    size_t sizes[4];
    sizes[0] = SIZE_MAX;
    sizes[1] = SIZE_MAX - 15;
    sizes[2] = (size_t)PTRDIFF_MAX;
    sizes[3] = (size_t)PTRDIFF_MAX + 1;
    for (int i = 0; i < 4; i++) {
        errno = 0;
        CHECK(ak_arena_alloc(a, opaque_size(sizes[i])) == NULL && errno == ENOMEM);
        errno = 0;
        CHECK((ak_arena_alloc)(a, opaque_size(sizes[i])) == NULL && errno == ENOMEM);
        errno = 0;
        CHECK(ak_arena_alloc_aligned(a, opaque_size(sizes[i]), 64) == NULL && errno == ENOMEM);
    }
    errno = 0;
    CHECK(ak_arena_calloc(a, opaque_size(SIZE_MAX / 2), 3) == NULL && errno == ENOMEM);
    CHECK(stats_of(a).used_bytes == used);
    ak_arena_destroy(a);
}

TEST(arena_null) {
    ak_arena_mark_t mark = ak_arena_mark((ak_arena_t *)opaque_pointer(NULL));
    ak_arena_t *none = (ak_arena_t *)opaque_pointer(NULL);
    ak_arena_stats_t st;
    errno = 0;
    CHECK(ak_arena_alloc(none, 10) == NULL && errno == EINVAL);
    CHECK((ak_arena_alloc)(none, 10) == NULL && ak_arena_alloc_aligned(none, 1, 64) == NULL);
    CHECK(ak_arena_calloc(none, 1, 1) == NULL && ak_arena_realloc(none, NULL, 0, 1) == NULL);
    CHECK(ak_arena_strdup(none, "x") == NULL && ak_arena_sprintf(none, "x") == NULL);
    CHECK(!ak_arena_rewind(none, mark) && !ak_arena_owns(none, &mark) && ak_arena_trim(none) == 0);
    CHECK(ak_arena_child(none, NULL) == NULL);
    ak_arena_reset(none);
    ak_arena_clear(none);
    st.struct_size = sizeof st;
    CHECK(!ak_arena_stats(none, &st));
    ak_arena_t *a = ak_arena_new(NULL);
    errno = 0;
    CHECK(ak_arena_strdup(a, (const char *)opaque_pointer(NULL)) == NULL && errno == EINVAL);
    errno = 0;
    CHECK(ak_arena_memdup(a, opaque_pointer(NULL), 5) == NULL && errno == EINVAL);
    st.struct_size = 1;
    CHECK(!ak_arena_stats(a, &st));
    ak_arena_destroy(a);
    CHECK(ak_fault_count() == 0);
}

TEST(arena_every_alignment) {
    ak_arena_t *a = ak_arena_new(NULL);
    for (size_t align = 1; align <= (size_t)1 << 22; align *= 2)
        for (size_t size = 1; size < 5000; size = size * 7 + 1) {
            char *p = (char *)ak_arena_alloc_aligned(a, size, align);
            CHECK_MSG(p != NULL && is_aligned(p, align), "alignment %zu", align);
            memset(p, 1, size);
        }
    size_t wrong[5];
    wrong[0] = 0;
    wrong[1] = 3;
    wrong[2] = 48;
    wrong[3] = (size_t)1 << 31;
    wrong[4] = SIZE_MAX;
    for (int i = 0; i < 5; i++) {
        errno = 0;
        CHECK(ak_arena_alloc_aligned(a, 1, opaque_size(wrong[i])) == NULL && errno == EINVAL);
    }
    ak_arena_destroy(a);
    ak_arena_opts_t opts = options();
    opts.alignment = 2048;
    a = ak_arena_new(&opts);
    for (int i = 0; i < 20; i++) CHECK(is_aligned(ak_arena_alloc(a, 100), 2048));
    ak_arena_destroy(a);
    opts.alignment = 100;
    errno = 0;
    CHECK(ak_arena_new(&opts) == NULL && errno == EINVAL);
}

TEST(arena_reset_keeps_its_chunks) {
    ak_arena_t *a = ak_arena_new(NULL);
    ak_arena_stats_t first;
    memset(&first, 0, sizeof first);
    for (int cycle = 0; cycle < 5; cycle++) {
        for (size_t i = 0; i < 2000; i++) block_of(a, i * 37 % 700);
        for (size_t i = 0; i < 10; i++) block_of(a, 70000 + i * 1000);
        ak_arena_stats_t st = stats_of(a);
        if (cycle == 0) first = st;
        CHECK(st.chunk_count == first.chunk_count && st.reserved_bytes == first.reserved_bytes);
        CHECK(st.used_bytes == first.used_bytes && st.peak_bytes == first.peak_bytes);
        CHECK(ak_arena_check(a) == 0);
        ak_arena_reset(a);
        CHECK(stats_of(a).used_bytes == 0);
    }
    ak_arena_clear(a);
    CHECK(stats_of(a).chunk_count == 1);
    ak_arena_trim(a);
    CHECK(stats_of(a).chunk_count == 0);
    CHECK(stats_of(a).peak_bytes == first.peak_bytes);
    ak_arena_destroy(a);
}

static void count_growth(ak_arena_t *a, size_t bytes, void *arg) {
    size_t *sizes = (size_t *)arg;
    CHECK(a != NULL && sizes[0] < 7);
    sizes[++sizes[0]] = bytes;
}

TEST(arena_chunks_double) {
    size_t sizes[8] = {0, 0, 0, 0, 0, 0, 0, 0};
    ak_arena_opts_t opts = options();
    opts.on_grow = count_growth;
    opts.arg = sizes;
    ak_arena_t *a = ak_arena_new(&opts);
    while (sizes[0] < 7) block_of(a, 100);
    for (size_t i = 0; i < 7; i++) CHECK(sizes[i + 1] == (i < 4 ? (size_t)4096 << i : 65536));
    ak_arena_destroy(a);
    sizes[0] = 0;
    opts.first_chunk = 1024;
    opts.largest_chunk = 2048;
    a = ak_arena_new(&opts);
    while (sizes[0] < 4) block_of(a, 100);
    CHECK(sizes[1] == 1024 && sizes[2] == 2048 && sizes[3] == 2048);
    block_of(a, 3000);
    CHECK(sizes[5] >= 3000 && sizes[5] < 3200);
    ak_arena_destroy(a);
}

TEST(arena_realloc) {
    ak_arena_t *a = ak_arena_new(NULL);
    char *p = (char *)ak_arena_realloc(a, NULL, 0, 100);
    CHECK(p != NULL);
    memset(p, 7, 100);
    CHECK(ak_arena_realloc(a, p, 100, 1000) == p); /* the newest: in place */
    CHECK(ak_arena_realloc(a, p, 1000, 100) == p);
    char *q = block_of(a, 16);
    char *moved = (char *)ak_arena_realloc(a, p, 100, 5000);
    CHECK(moved != NULL && moved != p && moved != q);
    for (int i = 0; i < 100; i++) CHECK(moved[i] == 7);
    moved = (char *)ak_arena_realloc(a, moved, 5000, 500000);
    moved = (char *)ak_arena_realloc(a, moved, 500000, 900000);
    CHECK(moved != NULL && moved[99] == 7);
    CHECK(ak_arena_realloc(a, moved, 900000, 800000) == moved);
    CHECK(ak_arena_realloc(a, moved, 800000, 0) == NULL);
    CHECK(ak_arena_check(a) == 0 && ak_fault_count() == 0);
    ak_arena_destroy(a);
}

TEST(arena_limit) {
    ak_arena_opts_t opts = options();
    opts.limit = 50000;
    ak_arena_t *a = ak_arena_new(&opts);
    char *p = block_of(a, 1000);
    block_of(a, 16);
    /* In the middle of a realloc, and of a sprintf: nothing is lost. */
    errno = 0;
    CHECK(ak_arena_realloc(a, p, 1000, 60000) == NULL && errno == ENOMEM);
    for (int i = 0; i < 1000; i++) CHECK(p[i] == (char)(1000 & 0x7f));
    size_t used = stats_of(a).used_bytes;
    errno = 0;
    CHECK(ak_arena_sprintf(a, "%60000d", 1) == NULL && errno == ENOMEM);
    CHECK(stats_of(a).used_bytes == used && ak_arena_check(a) == 0);
    while (ak_arena_alloc(a, 100) != NULL) continue;
    CHECK(stats_of(a).reserved_bytes <= 50000 && stats_of(a).used_bytes > 40000);
    ak_arena_reset(a);
    CHECK(ak_arena_alloc(a, 100) != NULL);
    /* A child counts too. */
    ak_arena_t *child = ak_arena_child(a, NULL);
    CHECK(child == NULL || ak_arena_alloc(child, 40000) == NULL);
    ak_arena_destroy(a);
}

TEST(arena_strings) {
    ak_arena_t *a = ak_arena_new(NULL);
    CHECK(strcmp(ak_arena_strdup(a, "hello"), "hello") == 0 && strcmp(ak_arena_strdup(a, ""), "") == 0);
    CHECK(strcmp(ak_arena_strndup(a, "hello", 3), "hel") == 0 && strcmp(ak_arena_strndup(a, "hi", 30), "hi") == 0);
    CHECK(memcmp(ak_arena_memdup(a, "abc", 4), "abc", 4) == 0);
    CHECK(strcmp(ak_arena_sprintf(a, "%d-%s-%.2f-%zu", 42, "x", 1.5, (size_t)7), "42-x-1.50-7") == 0);
    /* Many arguments of both kinds: those on the stack too. */
    CHECK(strcmp(ak_arena_sprintf(a, "%d%d%d%d%d%d%d%d %g %g %g %g %g %g %g %g %g %g", 1, 2, 3, 4, 5, 6, 7, 8, 1.0, 2.0,
                                  3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0),
                 "12345678 1 2 3 4 5 6 7 8 9 10") == 0);
    for (int width = 1; width < 10000; width += 611) { /* around the end of a chunk, where it is formatted twice */
        char *text = ak_arena_sprintf(a, "%*d|%d", width, 5, width);
        CHECK(text != NULL && text[width - 1] == '5' && text[width] == '|' && atoi(text + width + 1) == width);
    }
    CHECK(ak_arena_check(a) == 0);
    ak_arena_destroy(a);
}

TEST(arena_marks) {
    ak_arena_t *a = ak_arena_new(NULL);
    ak_arena_mark_t start = ak_arena_mark(a);
    char *kept = block_of(a, 300);
    ak_arena_mark_t mark = ak_arena_mark(a);
    size_t used = stats_of(a).used_bytes;
    for (int round = 0; round < 5; round++) {
        for (size_t i = 0; i < 500; i++) block_of(a, 600);
        block_of(a, 200000);
        CHECK(ak_arena_rewind(a, mark));
        CHECK(stats_of(a).used_bytes == used);
        for (int i = 0; i < 300; i++) CHECK(kept[i] == (char)(300 & 0x7f));
    }
    size_t chunks = stats_of(a).chunk_count;
    CHECK(ak_arena_rewind(a, start) && stats_of(a).chunk_count == chunks);
    ak_arena_destroy(a);
}

TEST(arena_wrong_marks) {
    uint64_t before = faults();
    ak_arena_t *a = ak_arena_new(NULL), *b = ak_arena_new(NULL);
    block_of(a, 100);
    block_of(b, 100);
    ak_arena_mark_t outer = ak_arena_mark(a);
    block_of(a, 100);
    ak_arena_mark_t inner = ak_arena_mark(a);
    block_of(a, 1000);
    size_t used = stats_of(b).used_bytes;
    errno = 0;
    CHECK(!ak_arena_rewind(b, outer) && errno == EINVAL); /* another arena's */
    CHECK(stats_of(b).used_bytes == used);
    CHECK(ak_arena_rewind(a, outer));
    CHECK(!ak_arena_rewind(a, inner)); /* ended with an older one */
    block_of(a, 1500);
    used = stats_of(a).used_bytes;
    CHECK(!ak_arena_rewind(a, inner)); /* also when the arena has grown past it */
    CHECK(stats_of(a).used_bytes == used);
    ak_arena_reset(a);
    block_of(a, 1000);
    CHECK(!ak_arena_rewind(a, outer)); /* from before a reset */
    CHECK(ak_fault_count() - before == 4 && ak_arena_check(a) + ak_arena_check(b) == 0);
    ak_arena_destroy(a);
    ak_arena_destroy(b);
}

TEST(arena_foreign_block) {
    uint64_t before = faults();
    ak_arena_t *a = ak_arena_new(NULL), *b = ak_arena_new(NULL);
    char *p = block_of(b, 100);
    void *other = ak_alloc(50);
    block_of(a, 100);
    errno = 0;
    CHECK(ak_arena_realloc(a, p, 100, 200) == NULL && errno == EINVAL);
    CHECK(ak_arena_realloc(a, other, 50, 200) == NULL);
    CHECK(!ak_arena_owns(a, p) && !ak_arena_owns(a, other) && ak_arena_owns(b, p));
    for (int i = 0; i < 100; i++) CHECK(p[i] == 100);
    CHECK(ak_fault_count() - before == 2);
    ak_free(other);
    ak_arena_destroy(a);
    ak_arena_destroy(b);
}

TEST(arena_children) {
    ak_arena_opts_t opts = options();
    opts.limit = 400000;
    ak_arena_t *a = ak_arena_new(&opts);
    opts = options();
    opts.parent = a;
    ak_arena_t *child = ak_arena_new(&opts), *second = ak_arena_child(a, NULL);
    ak_arena_t *grandchild = ak_arena_child(child, NULL);
    char *p = block_of(grandchild, 100);
    block_of(child, 200000);
    CHECK(ak_arena_alloc(a, 200000) == NULL); /* the child's memory counts */
    CHECK(ak_arena_owns(grandchild, p) && !ak_arena_owns(child, p) && !ak_arena_owns(a, p));
    CHECK(ak_arena_check(a) + ak_arena_check(child) + ak_arena_check(grandchild) == 0);
    ak_arena_destroy(second);
    ak_arena_reset(a); /* ends child and grandchild: there is room again */
    block_of(a, 200000);
    ak_arena_mark_t mark = ak_arena_mark(a);
    child = ak_arena_child(a, NULL);
    block_of(child, 150000);
    CHECK(ak_arena_rewind(a, mark)); /* and so does a rewind, if the child is younger */
    block_of(a, 150000);
    ak_arena_destroy(a);
    a = ak_arena_new(NULL);
    ak_arena_t *one = a;
    for (int i = 0; i < 3000; i++) one = ak_arena_child(one, NULL); /* no recursion */
    CHECK(one != NULL);
    ak_arena_destroy(a);
    if (is_tracked()) CHECK(ak_leaks_print() == 0);
}

TEST(arena_buffer) {
    static char memory[8192];
    for (size_t offset = 0; offset < 17; offset += 3) {
        memset(memory, 0x55, sizeof memory);
        ak_arena_opts_t opts = options();
        opts.buffer = memory + 64 + offset;
        opts.buffer_size = 4000 + offset;
        opts.flags = AK_ARENA_FIXED;
        ak_arena_t *a = ak_arena_new(&opts);
        CHECK(a != NULL);
        char *end = memory + 64 + offset + 4000 + offset, *last = NULL;
        for (;;) {
            char *p = (char *)ak_arena_alloc(a, 48);
            if (p == NULL) break;
            memset(p, 1, 48);
            last = p + 48;
        }
        CHECK(errno == ENOMEM && end - last < 48 + 16);
        ak_arena_reset(a);
        /* All that is left is one block, to the last byte. */
        ak_arena_stats_t st = stats_of(a);
        size_t all = st.reserved_bytes - st.waste_bytes;
        char *whole = (char *)ak_arena_alloc(a, opaque_size(all));
        CHECK(whole != NULL && whole + all == end);
        memset(whole, 2, all);
        CHECK(ak_arena_alloc(a, 1) == NULL && ak_arena_check(a) == 0);
        ak_arena_destroy(a);
        for (size_t i = 0; i < 64 + offset; i++) CHECK(memory[i] == 0x55);
        for (char *p = end; p < memory + sizeof memory; p++) CHECK(*p == 0x55);
    }
    ak_arena_opts_t opts = options();
    opts.buffer = memory;
    opts.buffer_size = 100; /* too small for the arena itself */
    errno = 0;
    CHECK(ak_arena_new(&opts) == NULL && errno == EINVAL);
    opts.buffer = NULL;
    opts.flags = AK_ARENA_FIXED; /* no memory at all */
    errno = 0;
    CHECK(ak_arena_new(&opts) == NULL && errno == EINVAL);
}

TEST(arena_short_options) {
    /* What an older program knows of the options. */
    size_t old[3];
    old[0] = sizeof old;
    old[1] = 0;
    old[2] = 512;
    ak_arena_t *a = ak_arena_new((const ak_arena_opts_t *)opaque_pointer(old));
    CHECK(a != NULL);
    block_of(a, 100);
    ak_arena_destroy(a);
    old[0] = 3;
    CHECK(ak_arena_new((const ak_arena_opts_t *)opaque_pointer(old)) == NULL);
}

TEST(arena_guard) {
    uint64_t before = faults();
    ak_arena_opts_t opts = options();
    opts.flags = AK_ARENA_GUARD;
    ak_arena_t *a = ak_arena_new(&opts);
    char *p = block_of(a, 200);
    ak_arena_reset(a);
    p = (char *)opaque_pointer(p);
    CHECK((unsigned char)p[10] == 0xDD && (unsigned char)p[199] == 0xDD);
    CHECK(ak_arena_check(a) == 0);
    p[10] = 1; /* a write after the reset */
    CHECK(ak_arena_check(a) == 1);
    CHECK(ak_arena_alloc(a, 100) == p && ak_fault_count() == before + 1);
    ak_arena_destroy(a);
}

static void *use_in_thread(void *arg) {
    ak_arena_t *a = (ak_arena_t *)arg;
    block_of(a, 1000);
    ak_arena_reset(a);
    block_of(a, 50000);
    return NULL;
}

TEST(arena_any_thread) {
    ak_arena_t *arenas[4];
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) {
        arenas[i] = ak_arena_new(NULL);
        block_of(arenas[i], 10);
        CHECK(pthread_create(&threads[i], NULL, use_in_thread, arenas[i]) == 0);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
        CHECK(ak_arena_check(arenas[i]) == 0);
        ak_arena_destroy(arenas[i]);
    }
}

/* ---- scratch ---- */

static char *join(ak_arena_t *result, const char *a, const char *b) {
    ak_scratch_t s = ak_scratch_begin();
    CHECK(s.arena != NULL && s.arena != result);
    char *temporary = ak_arena_sprintf(s.arena, "%s+%s", a, b);
    char *made = ak_arena_sprintf(result, "<%s>", temporary);
    ak_scratch_end(s);
    return made;
}

TEST(scratch_nests) {
    ak_scratch_t s = ak_scratch_begin();
    char *one = join(s.arena, "a", "b"); /* the caller's scratch arena is the result arena */
    char *two = join(s.arena, one, "c");
    CHECK(strcmp(one, "<a+b>") == 0 && strcmp(two, "<<a+b>+c>") == 0);
    ak_scratch_end(s);
    ak_scratch_t levels[50];
    for (int i = 0; i < 50; i++) {
        levels[i] = ak_scratch_begin();
        for (int k = 0; k < i; k++) CHECK(levels[k].arena != levels[i].arena);
        block_of(levels[i].arena, 1000);
    }
    for (int i = 50; i-- > 0;) ak_scratch_end(levels[i]);
    CHECK(ak_fault_count() == 0);
}

TEST(scratch_out_of_order) {
    uint64_t before = faults();
    ak_scratch_t a = ak_scratch_begin(), b = ak_scratch_begin();
    ak_scratch_end(a);
    CHECK(ak_fault_count() == before + 1);
    ak_scratch_end(b); /* ended with a */
    CHECK(ak_fault_count() == before + 2);
    ak_scratch_t c = ak_scratch_begin();
    ak_scratch_end(a);
    CHECK(ak_fault_count() == before + 3);
    block_of(c.arena, 10);
    ak_scratch_end(c);
    CHECK(ak_fault_count() == before + 3);
}

static void *scratch_in_thread(void *arg) {
    for (int i = 0; i < 3; i++) {
        ak_scratch_t s = ak_scratch_begin(), t = ak_scratch_begin();
        CHECK(s.arena != (ak_arena_t *)arg);
        block_of(s.arena, 100000);
        block_of(t.arena, 100);
        ak_scratch_end(t);
        ak_scratch_end(s);
    }
    ak_scratch_t left_open = ak_scratch_begin();
    block_of(left_open.arena, 100);
    return NULL;
}

TEST(scratch_ends_with_its_thread) {
    ak_scratch_t mine = ak_scratch_begin();
    size_t live = is_tracked() ? ak_leaks_print() : 0;
    for (int i = 0; i < 20; i++) {
        pthread_t thread;
        CHECK(pthread_create(&thread, NULL, scratch_in_thread, mine.arena) == 0);
        pthread_join(thread, NULL);
    }
    if (is_tracked()) CHECK(ak_leaks_print() == live);
    ak_scratch_end(mine);
}

TEST(arena_chunk_that_fails_on_purpose) {
    ak_arena_t *arena = ak_arena_new(NULL);
    char *text;
    CHECK(arena != NULL);
    if (!ak_fail_nth(1)) SKIP("not in this build");
    CHECK(ak_fail_nth(0));
    text = ak_arena_strdup(arena, "kept");
    CHECK(text != NULL && ak_fail_nth(1));
    errno = 0;
    CHECK(ak_arena_alloc(arena, 10000000) == NULL && errno == ENOMEM && ak_fail_count() == 1);
    CHECK(ak_arena_alloc(arena, 10000000) != NULL && strcmp(text, "kept") == 0);
    CHECK(ak_fail_nth(1) && ak_pool_new(16, NULL) == NULL && ak_fail_nth(1) && ak_stack_new(1000, NULL) == NULL);
    CHECK(ak_fail_nth(0));
    ak_arena_destroy(arena);
}
