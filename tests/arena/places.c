/* Regions, pools and stacks: what arena.h promises, the bad inputs, and what the allocators that they replace got wrong. */
#include "../conformance/check.h"

static ak_region_stats_t stats_of(ak_region_t *r) {
    ak_region_stats_t st;
    st.struct_size = sizeof st;
    CHECK(ak_region_stats(r, &st));
    return st;
}

static uint64_t faults(void) {
    ak_policy_set(AK_POLICY_QUIET);
    return ak_fault_count();
}

static void check_empty(ak_region_t *r) {
    ak_region_stats_t st = stats_of(r);
    CHECK(st.used_bytes == 0 && st.block_count == 0 && st.largest_free_bytes + 16 == st.capacity_bytes);
    void *all = ak_region_alloc(r, st.largest_free_bytes);
    CHECK(all != NULL);
    ak_region_free(all);
    CHECK(ak_region_check(r) == 0);
}

TEST(region_merges) {
    static char memory[100000];
    for (size_t offset = 0; offset < 17; offset += 5) {
        ak_region_t *r = ak_region_from_buffer(memory + offset, sizeof memory - offset);
        void *blocks[3000];
        for (int order = 0; order < 3; order++) {
            size_t count = 0;
            uint64_t random = 7;
            while (count < 3000) {
                size_t size = random_next(&random) % 300;
                blocks[count] = ak_region_alloc(r, size);
                if (blocks[count] == NULL) break;
                CHECK(is_aligned(blocks[count], 16));
                memset(blocks[count], (int)(count & 0x7f), size);
                count++;
            }
            CHECK(count > 300 && ak_region_check(r) == 0);
            size_t half = (count + 1) / 2;
            for (size_t i = 0; i < count; i++) { /* from the first, from the last, every other one and then the rest */
                size_t at = order == 0 ? i : order == 1 ? count - 1 - i : i < half ? 2 * i : 2 * (i - half) + 1;
                ak_region_free(blocks[at]);
            }
            check_empty(r);
        }
        ak_region_destroy(r);
    }
    CHECK(ak_fault_count() == 0);
}

TEST(region_overhead) {
    ak_region_t *r = ak_region_new(100000);
    size_t capacity = stats_of(r).capacity_bytes, count = 0;
    CHECK(capacity >= 100000);
    while (ak_region_alloc(r, 48) != NULL) count++;
    CHECK(count == capacity / 64);
    ak_region_destroy(r);
}

TEST(region_bad_input) {
    static char memory[4096];
    ak_region_t *none = (ak_region_t *)opaque_pointer(NULL);
    ak_region_stats_t st;
    errno = 0;
    CHECK(ak_region_from_buffer(opaque_pointer(NULL), 4096) == NULL && errno == EINVAL);
    errno = 0;
    CHECK(ak_region_from_buffer(memory, 64) == NULL && errno == EINVAL);
    CHECK(ak_region_from_buffer(memory, 0) == NULL);
    errno = 0;
    CHECK(ak_region_new(SIZE_MAX) == NULL && errno == ENOMEM);
    CHECK(ak_region_alloc(none, 1) == NULL && ak_region_child(none, 1) == NULL && ak_region_scratch(none, 1) == NULL);
    CHECK(ak_region_realloc(none, NULL, 1) == NULL && ak_region_usable_size(NULL) == 0);
    ak_region_reset(none);
    ak_region_destroy(none);
    ak_region_free(NULL);
    st.struct_size = sizeof st;
    CHECK(!ak_region_stats(none, &st));
    ak_region_t *r = ak_region_from_buffer(memory + 1, sizeof memory - 1);
    size_t wrong[3];
    wrong[0] = SIZE_MAX;
    wrong[1] = (size_t)PTRDIFF_MAX;
    wrong[2] = 5000;
    for (int i = 0; i < 3; i++) {
        errno = 0;
        CHECK(ak_region_alloc(r, opaque_size(wrong[i])) == NULL && errno == ENOMEM);
        CHECK(ak_region_scratch(r, opaque_size(wrong[i])) == NULL);
        CHECK(ak_region_alloc_aligned(r, opaque_size(wrong[i]), 64) == NULL);
    }
    CHECK(ak_region_calloc(r, opaque_size(SIZE_MAX), 2) == NULL);
    errno = 0;
    CHECK(ak_region_alloc_aligned(r, 1, opaque_size(24)) == NULL && errno == EINVAL);
    void *p = ak_region_alloc(r, 0), *q = ak_region_alloc(r, 0);
    CHECK(p != NULL && q != NULL && p != q);
    ak_region_free(p);
    ak_region_free(q);
    check_empty(r);
    ak_region_destroy(r);
    CHECK(ak_fault_count() == 0);
}

TEST(region_alignment) {
    ak_region_t *r = ak_region_new(1 << 20);
    for (size_t align = 32; align <= 65536; align *= 2) {
        void *p = ak_region_alloc_aligned(r, 100, align);
        CHECK_MSG(p != NULL && is_aligned(p, align), "alignment %zu", align);
        CHECK(stats_of(r).used_bytes <= 144); /* the gap is free */
        ak_region_free(p);
    }
    check_empty(r);
    ak_region_destroy(r);
}

TEST(region_realloc) {
    ak_region_t *r = ak_region_new(100000);
    char *p = (char *)ak_region_realloc(r, NULL, 100);
    memset(p, 5, 100);
    CHECK(ak_region_realloc(r, p, 5000) == p && ak_region_realloc(r, p, 200) == p);
    CHECK(ak_region_usable_size(p) >= 200);
    void *wall = ak_region_alloc(r, 16);
    char *moved = (char *)ak_region_realloc(r, p, 9000);
    CHECK(moved != NULL && moved != p);
    for (int i = 0; i < 100; i++) CHECK(moved[i] == 5);
    errno = 0;
    CHECK(ak_region_realloc(r, moved, 1000000) == NULL && errno == ENOMEM);
    for (int i = 0; i < 100; i++) CHECK(moved[i] == 5);
    CHECK(ak_region_realloc(r, moved, 0) == NULL);
    ak_region_free(wall);
    check_empty(r);
    ak_region_destroy(r);
    CHECK(ak_fault_count() == 0);
}

TEST(region_wrong_frees) {
    uint64_t before = faults();
    ak_region_t *r = ak_region_new(100000), *other = ak_region_new(10000);
    char *p = (char *)ak_region_alloc(r, 100), *q = (char *)ak_region_alloc(r, 3000);
    char *s = (char *)ak_region_alloc(r, 64), *foreign = (char *)ak_region_alloc(other, 10);
    memset(s, 0, 64);
    ak_region_free(p);
    errno = 77;
    ak_region_free(p);                                     /* twice, a small one */
    CHECK(errno == 77 && ak_fault_count() == before + 1);
    ak_region_free(q);
    ak_region_free(q);                                     /* twice, a merged one */
    ak_region_free((char *)opaque_pointer(s) + 16);        /* the middle of a block */
    ak_region_free((char *)opaque_pointer(s) + 1);         /* not even aligned */
    CHECK(ak_region_realloc(r, foreign, 20) == NULL);      /* another region's */
    CHECK(ak_fault_count() == before + 5);
    ak_region_free(foreign);                               /* finds its own region */
    CHECK(stats_of(other).block_count == 0);
    ak_region_reset(r);
    ak_region_free(s);                                     /* from before a reset */
    CHECK(ak_fault_count() == before + 6);
    check_empty(r);
    ak_region_destroy(r);
    ak_region_destroy(other);
}

TEST(region_damage) {
    ak_region_t *r = ak_region_new(100000);
    char *p = (char *)ak_region_alloc(r, 24), *q = (char *)ak_region_alloc(r, 24);
    CHECK(ak_region_check(r) == 0);
    ((char *)opaque_pointer(p))[32] ^= 1; /* the next block's header */
    CHECK(ak_region_check(r) != 0);
    uint64_t before = faults();
    ak_region_free(q);
    CHECK(ak_fault_count() == before + 1);
    ak_region_destroy(r);
}

TEST(region_scratch_and_children) {
    ak_region_t *r = ak_region_new(100000);
    char *low = (char *)ak_region_alloc(r, 100), *end = (char *)ak_region_scratch(r, 1000);
    CHECK(end > low + 90000);
    errno = 0;
    CHECK(ak_region_scratch(r, 10) == NULL && errno == EBUSY);
    ak_region_free(end);
    CHECK(ak_region_scratch(r, 10) > (void *)end);
    ak_region_t *child = ak_region_child(r, 20000);
    char *p = (char *)ak_region_alloc(child, 19000);
    CHECK(p != NULL && ak_region_owns(r, p) && ak_region_owns(child, p));
    CHECK(ak_region_child(r, 90000) == NULL);
    uint64_t before = faults();
    ak_region_reset_zero(r);
    CHECK(ak_region_alloc(child, 10) == NULL && ak_fault_count() == before + 1); /* ended with its parent */
    ak_region_destroy(r);
}

static void append(const char *text, size_t length, void *arg) { strncat((char *)arg, text, length); }

TEST(region_picture) {
    static char text[8192];
    ak_region_t *r = ak_region_new(100000);
    void *p = ak_region_alloc(r, 50000);
    CHECK(p != NULL && ak_region_write(r, append, text));
    CHECK(strstr(text, "50016 in use in 1 blocks") != NULL && strstr(text, "####") != NULL && strstr(text, "....") != NULL);
    errno = 0;
    CHECK(!ak_region_write(r, NULL, NULL) && errno == EINVAL);
    ak_region_destroy(r);
}

/* A tree for free blocks on a fixed stack would be overrun after a few million of these. */
TEST(region_millions) {
    enum { LIVE = 20000 };
    static unsigned char *blocks[LIVE];
    static size_t sizes[LIVE];
    ak_region_t *r = ak_region_new((size_t)LIVE * 300);
    uint64_t random = 99;
    int steps = is_emulated() ? 200000 : 3000000;
    for (int i = 0; i < steps; i++) {
        size_t at = random_next(&random) % LIVE, size = random_next(&random) % 300 + 1;
        if (blocks[at] != NULL) {
            CHECK(blocks[at][0] == (unsigned char)at && blocks[at][sizes[at] - 1] == (unsigned char)at);
            ak_region_free(blocks[at]);
        }
        blocks[at] = (unsigned char *)ak_region_alloc(r, size);
        sizes[at] = size;
        if (blocks[at] != NULL) blocks[at][0] = blocks[at][size - 1] = (unsigned char)at;
        if (i % 1000000 == 0) CHECK(ak_region_check(r) == 0);
    }
    CHECK(ak_region_check(r) == 0 && ak_fault_count() == 0);
    for (int i = 0; i < LIVE; i++) ak_region_free(blocks[i]);
    check_empty(r);
    ak_region_destroy(r);
}

/* ---- pools ---- */

static ak_pool_opts_t options_of_pool(void) {
    ak_pool_opts_t opts;
    memset(&opts, 0, sizeof opts);
    opts.struct_size = sizeof opts;
    opts.name = "nodes";
    return opts;
}

TEST(pool_objects) {
    for (size_t size = 0; size < 3000; size = size * 3 + 1) {
        ak_pool_t *p = ak_pool_new(size, NULL);
        unsigned char *objects[400];
        for (int round = 0; round < 3; round++) {
            for (int i = 0; i < 400; i++) {
                objects[i] = (unsigned char *)ak_pool_take(p);
                CHECK(objects[i] != NULL && is_aligned(objects[i], 16));
                memset(objects[i], i & 0xff, size);
            }
            for (int i = 0; i < 400; i++) {
                for (size_t k = 0; k < size; k++) CHECK(objects[i][k] == (unsigned char)i);
                if (round != 1) ak_pool_give(p, objects[i]);
            }
            CHECK(ak_pool_check(p) == 0);
            if (round == 1) ak_pool_reset(p);
        }
        ak_pool_destroy(p);
    }
    CHECK(ak_fault_count() == 0);
}

TEST(pool_misuse) {
    uint64_t before = faults();
    ak_pool_t *p = ak_pool_new(40, NULL), *other = ak_pool_new(40, NULL);
    void *a = ak_pool_take(p), *b = ak_pool_take(p), *foreign = ak_pool_take(other);
    char local[64];
    ak_pool_give(p, NULL);
    ak_pool_give(p, a);
    ak_pool_give(p, a);
    ak_pool_give(p, b);
    ak_pool_give(p, opaque_pointer(a));
    CHECK(ak_fault_count() == before + 2);
    ak_pool_give(p, foreign);
    ak_pool_give(p, opaque_pointer(local));
    CHECK(ak_fault_count() == before + 4 && ak_pool_check(p) == 0);
    memset(opaque_pointer(b), 1, 40); /* written after it was given */
    CHECK(ak_pool_check(p) != 0);
    CHECK(ak_pool_take(p) != NULL && ak_fault_count() == before + 5);
    errno = 0;
    CHECK(ak_pool_take((ak_pool_t *)opaque_pointer(NULL)) == NULL && errno == EINVAL);
    ak_pool_give((ak_pool_t *)opaque_pointer(NULL), a);
    ak_pool_destroy(p);
    ak_pool_destroy(other);
    ak_pool_destroy(NULL);
}

TEST(pool_options) {
    static char memory[4096];
    ak_pool_opts_t opts = options_of_pool();
    opts.limit = 10;
    opts.alignment = 128;
    ak_pool_t *p = ak_pool_new(24, &opts);
    for (int i = 0; i < 10; i++) CHECK(is_aligned(ak_pool_take(p), 128));
    errno = 0;
    CHECK(ak_pool_take(p) == NULL && errno == ENOMEM);
    ak_pool_reset(p);
    CHECK(ak_pool_take(p) != NULL);
    ak_pool_destroy(p);
    opts = options_of_pool();
    opts.buffer = memory + 1;
    opts.buffer_size = sizeof memory - 1;
    opts.flags = AK_POOL_FIXED | AK_POOL_GUARD;
    p = ak_pool_new(64, &opts);
    int count = 0;
    char *last = NULL;
    for (char *object; (object = (char *)ak_pool_take(p)) != NULL; count++) memset(last = object, 1, 64);
    CHECK(count > 50 && last + 64 <= memory + sizeof memory);
    uint64_t before = faults();
    ak_pool_give(p, last + 16); /* the middle of an object */
    CHECK(ak_fault_count() == before + 1);
    ak_pool_destroy(p);
    opts.buffer_size = 100;
    errno = 0;
    CHECK(ak_pool_new(64, &opts) == NULL && errno == EINVAL);
    opts = options_of_pool();
    opts.alignment = 5;
    CHECK(ak_pool_new(8, &opts) == NULL && ak_pool_new(SIZE_MAX, NULL) == NULL);
    CHECK(ak_pool_new(64, &opts) == NULL);
    opts.alignment = 0;
    opts.buffer = NULL;
    opts.flags = AK_POOL_FIXED;
    errno = 0;
    CHECK(ak_pool_new(64, &opts) == NULL && errno == EINVAL);
}

/* ---- stacks ---- */

TEST(stack_order) {
    ak_stack_t *s = ak_stack_new(10000, NULL);
    void *blocks[20];
    for (size_t i = 0; i < 20; i++) {
        blocks[i] = ak_stack_push(s, i * 20);
        CHECK(blocks[i] != NULL && is_aligned(blocks[i], 16));
        memset(blocks[i], 1, i * 20);
    }
    CHECK(ak_stack_check(s) == 0);
    for (int i = 20; i-- > 0;) CHECK(ak_stack_pop(s, blocks[i]));
    CHECK(ak_stack_pop(s, NULL));
    ak_stack_mark_t outer = ak_stack_mark(s);
    CHECK(ak_stack_push(s, 100) != NULL);
    ak_stack_mark_t inner = ak_stack_mark(s);
    CHECK(ak_stack_push(s, 100) != NULL);
    CHECK(ak_stack_release(s, inner) && ak_stack_release(s, outer));
    CHECK(ak_fault_count() == 0);
    ak_stack_destroy(s);
}

TEST(stack_misuse) {
    uint64_t before = faults();
    ak_stack_t *s = ak_stack_new(10000, NULL), *other = ak_stack_new(1000, NULL);
    void *a = ak_stack_push(s, 50), *b = ak_stack_push(s, 50);
    char local[64];
    errno = 0;
    CHECK(!ak_stack_pop(s, a) && errno == EINVAL); /* not the newest */
    CHECK(ak_stack_pop(s, b) && !ak_stack_pop(s, b));
    CHECK(!ak_stack_pop(s, opaque_pointer(local)) && !ak_stack_pop(s, (char *)opaque_pointer(a) + 16));
    ak_stack_mark_t outer = ak_stack_mark(s), inner = ak_stack_mark(s);
    CHECK(!ak_stack_pop(s, a)); /* a mark lies above it */
    CHECK(!ak_stack_release(other, outer) && ak_stack_release(s, outer) && !ak_stack_release(s, inner));
    CHECK(!ak_stack_release(s, outer));
    CHECK(ak_stack_pop(s, a) && ak_stack_check(s) == 0);
    CHECK(ak_fault_count() == before + 8);
    ak_stack_destroy(s);
    ak_stack_destroy(other);
    ak_stack_destroy(NULL);
}

TEST(stack_bad_input) {
    static char memory[1000];
    ak_stack_opts_t opts;
    memset(&opts, 0, sizeof opts);
    opts.struct_size = sizeof opts;
    ak_stack_t *s = ak_stack_new(1000, NULL);
    errno = 0;
    CHECK(ak_stack_push(s, opaque_size(2000)) == NULL && errno == ENOMEM);
    CHECK(ak_stack_push(s, opaque_size(SIZE_MAX)) == NULL && ak_stack_push(s, opaque_size(SIZE_MAX - 20)) == NULL);
    CHECK(ak_stack_push(s, 900) != NULL);
    for (;;) {
        ak_stack_mark_t mark = ak_stack_mark(s);
        if (mark.ak_serial == 0) break;
    }
    CHECK(errno == ENOMEM);
    ak_stack_destroy(s);
    CHECK(ak_stack_new(SIZE_MAX, NULL) == NULL);
    CHECK(ak_stack_push((ak_stack_t *)opaque_pointer(NULL), 1) == NULL);
    opts.alignment = 3;
    errno = 0;
    CHECK(ak_stack_new(1000, &opts) == NULL && errno == EINVAL);
    opts.alignment = 256;
    opts.buffer = memory + 3;
    s = ak_stack_new(sizeof memory - 3, &opts);
    void *p = ak_stack_push(s, 1);
    CHECK(p != NULL && is_aligned(p, 256) && ak_stack_pop(s, p));
    ak_stack_destroy(s);
    CHECK(ak_stack_new(50, &opts) == NULL && ak_fault_count() == 0);
}

/* ---- reports ---- */

CHILD(report_child) {
    ak_arena_opts_t opts;
    memset(&opts, 0, sizeof opts);
    opts.struct_size = sizeof opts;
    opts.name = "requests";
    ak_arena_t *a = ak_arena_new(&opts);
    ak_arena_mark_t mark = ak_arena_mark(a);
    ak_arena_reset(a);
    ak_arena_rewind(a, mark);
    ak_arena_destroy(a);
    _exit(0);
}

TEST(reports_name_the_arena_and_both_places) {
    static const char *const abort_[] = {"ALLOKIT_POLICY=abort", "ALLOKIT_GUARD", NULL};
    static const char *const report[] = {"ALLOKIT_POLICY=report", "ALLOKIT_GUARD", NULL}, *const quiet[] = {"ALLOKIT_POLICY=quiet", "ALLOKIT_GUARD", NULL};
    static child_result_t result;
    run_child("report_child", abort_, 0, &result);
    CHECK(WIFSIGNALED(result.status) && WTERMSIG(result.status) == 6);
    CHECK_MSG(strstr(result.err, "in arena \"requests\": the mark is from before a reset") != NULL, "%s", result.err);
#ifdef AK_TRACK
    CHECK_MSG(strstr(result.err, "  arena made at ") != NULL && strstr(result.err, "  rewind at ") != NULL, "%s",
              result.err);
#endif
    CHECK(strstr(result.err, "aborting") != NULL);
    run_child("report_child", report, 0, &result);
    CHECK_CHILD_OK(result);
    CHECK(strstr(result.err, "requests") != NULL && strstr(result.err, "aborting") == NULL);
    run_child("report_child", quiet, 0, &result);
    CHECK_CHILD_OK(result);
    CHECK(result.err[0] == 0);
}
