/*
 * stats.c - the statistics: versions of the struct, what is known, exact counters when tracked, the formats, the output
 * at exit. The JSON is parsed in full by the runner of the matrix; here its figures are compared.
 */
#include "check.h"

#include <fcntl.h>

#include <inttypes.h>
#include <stddef.h>

static ak_stats_t stats_now(void) {
    ak_stats_t stats;
    memset(&stats, 0x5a, sizeof stats);
    stats.struct_size = sizeof stats;
    CHECK(ak_stats_get(&stats));
    return stats;
}

enum { FIRST_SIX = 63 };
static const uint64_t *fields_of(const ak_stats_t *stats) { return &stats->alloc_count; }
enum { FIELDS = (sizeof(ak_stats_t) - offsetof(ak_stats_t, alloc_count)) / sizeof(uint64_t) };

TEST(stats_unknown_fields_are_zero) {
    ak_free(ak_alloc(100));
    ak_stats_t stats = stats_now();
    CHECK(stats.struct_size == sizeof stats && FIELDS == 10);
    CHECK((stats.known >> FIELDS) == 0);
    for (int i = 0; i < FIELDS; i++)
        CHECK_MSG((stats.known >> i & 1) != 0 || fields_of(&stats)[i] == 0, "field %d is unknown, yet not 0", i);
    if (is_tracked()) CHECK_MSG((stats.known & FIRST_SIX) == FIRST_SIX, "known is %" PRIx64, stats.known);
    if ((stats.known & AK_KNOWN_THREADS) != 0) CHECK(stats.threads >= 1);
    uint64_t mapped = AK_KNOWN_COMMITTED_BYTES | AK_KNOWN_MAPPED_PEAK_BYTES;
    if ((stats.known & mapped) == mapped) CHECK(stats.mapped_peak_bytes >= stats.committed_bytes);
    mapped = AK_KNOWN_COMMITTED_BYTES | AK_KNOWN_RESERVED_BYTES;
    if ((stats.known & mapped) == mapped) CHECK(stats.reserved_bytes >= stats.committed_bytes);
    if (is_backend("native")) CHECK((stats.known & mapped) == mapped);
}

TEST(stats_follow_large_blocks) {
    ak_stats_t before = stats_now();
    size_t size = (size_t)50 << 20;
    unsigned char *block = (unsigned char *)ak_alloc(size);
    CHECK(block != NULL);
    memset(opaque_pointer(block), 1, size);
    ak_stats_t with = stats_now();
    if ((with.known & AK_KNOWN_CURRENT_BYTES) != 0) CHECK(with.current_bytes >= before.current_bytes + size);
    if ((with.known & AK_KNOWN_COMMITTED_BYTES) != 0) CHECK(with.committed_bytes >= size);
    if ((with.known & AK_KNOWN_RESERVED_BYTES) != 0) CHECK(with.reserved_bytes >= size);
    ak_free(block);
    ak_stats_t after = stats_now();
    if ((with.known & AK_KNOWN_CURRENT_BYTES) != 0) CHECK(after.current_bytes < size);
    if ((with.known & AK_KNOWN_PEAK_BYTES) != 0) CHECK(after.peak_bytes >= size);
    if ((with.known & AK_KNOWN_MAPPED_PEAK_BYTES) != 0) CHECK(after.mapped_peak_bytes >= size);
}

/* Programs from before a field was added pass a smaller struct, programs from after it a larger one. */
TEST(stats_struct_size_is_respected) {
    unsigned char memory[sizeof(ak_stats_t) + 64];
    for (size_t size = 0; size <= sizeof memory; size++) {
        memset(memory, 0xc3, sizeof memory);
        memcpy(memory, &size, sizeof size);
        errno = 0;
        bool ok = ak_stats_get((ak_stats_t *)(void *)memory);
        size_t filled;
        memcpy(&filled, memory, sizeof filled);
        for (size_t i = size < sizeof size ? sizeof size : size; i < sizeof memory; i++)
            CHECK_MSG(memory[i] == 0xc3, "a struct of %zu bytes was overrun at %zu", size, i);
        if (size < 2 * sizeof(uint64_t)) {
            CHECK_MSG(!ok && errno == EINVAL, "size %zu was taken", size);
        } else if (size % 8 == 0) {
            size_t expected = size < sizeof(ak_stats_t) ? size : sizeof(ak_stats_t);
            CHECK_MSG(ok && filled == expected, "of size %zu, %zu were filled", size, filled);
            for (size_t i = expected; i < sizeof memory; i++) CHECK(memory[i] == 0xc3);
        }
    }
    errno = 0;
    CHECK(!ak_stats_get((ak_stats_t *)opaque_pointer(NULL)) && errno == EINVAL);
}

TEST(stats_count_exactly_when_tracked) {
    if (!is_tracked()) SKIP("tracking is off");
    ak_stats_t start = stats_now();
    void *a = ak_alloc(100);
    void *b = ak_calloc(3, 70);
    void *c = ak_alloc_aligned(1000, 4096);
    char *d = ak_strdup("four");
    void *e = ak_alloc(0);
    ak_stats_t live = stats_now();
    CHECK(live.alloc_count - start.alloc_count == 5 && live.free_count == start.free_count);
    CHECK(live.alloc_bytes - start.alloc_bytes == 100 + 210 + 1000 + 5);
    CHECK(live.current_bytes - start.current_bytes == 1315);
    CHECK(live.current_bytes == live.alloc_bytes - live.free_bytes);
    a = ak_realloc(a, 50000); /* one alloc and one free, of the new and the old size */
    ak_stats_t resized = stats_now();
    CHECK(resized.alloc_count - live.alloc_count == 1 && resized.free_count - live.free_count == 1);
    CHECK(resized.alloc_bytes - live.alloc_bytes == 50000 && resized.free_bytes - live.free_bytes == 100);
    a = ak_realloc(a, 10);
    ak_free(a);
    ak_free(b);
    ak_free_sized(c, 1000);
    ak_free(d);
    ak_free(e);
    ak_free(NULL);
    ak_stats_t end = stats_now();
    CHECK(end.alloc_count - start.alloc_count == 7 && end.free_count - start.free_count == 7);
    CHECK(end.current_bytes == start.current_bytes);
    CHECK(end.peak_bytes >= 51215 && end.peak_bytes <= 51215 + start.current_bytes + 65536);
    errno = 0; /* what is refused is not counted */
    CHECK(ak_alloc(opaque_size(SIZE_MAX)) == NULL && ak_calloc(opaque_size(SIZE_MAX), 2) == NULL);
    CHECK(ak_alloc_aligned(10, opaque_size(3)) == NULL && ak_strdup((const char *)opaque_pointer(NULL)) == NULL);
    CHECK(stats_now().alloc_count == end.alloc_count);
}

static void *allocate_some(void *argument) {
    for (int i = 0; i < 1000; i++) ak_free(ak_alloc(10));
    return ak_alloc((size_t)(uintptr_t)argument);
}
TEST(stats_count_every_thread_when_tracked) {
    if (!is_tracked()) SKIP("tracking is off");
    ak_stats_t start = stats_now();
    pthread_t threads[8];
    void *blocks[8];
    for (int i = 0; i < 8; i++) CHECK(pthread_create(&threads[i], NULL, allocate_some, (void *)(uintptr_t)100) == 0);
    for (int i = 0; i < 8; i++) pthread_join(threads[i], &blocks[i]);
    ak_stats_t live = stats_now(); /* those threads are gone: their counts are not */
    CHECK(live.alloc_count - start.alloc_count == 8 * 1001 && live.free_count - start.free_count == 8 * 1000);
    CHECK(live.current_bytes - start.current_bytes == 800);
    for (int i = 0; i < 8; i++) ak_free(blocks[i]);
    CHECK(stats_now().current_bytes == start.current_bytes);
}

/* ---- formats ----------------------------------------------------------------------------------------------------- */

typedef struct text {
    size_t length, pieces;
    char bytes[65536];
} text_t;
static text_t text;

static void collect_text(const char *piece, size_t length, void *argument) {
    text_t *into = (text_t *)argument;
    CHECK(into->length + length < sizeof into->bytes);
    memcpy(into->bytes + into->length, piece, length);
    into->length += length;
    into->pieces++;
    into->bytes[into->length] = 0;
}
static const char *written(ak_format_t format) {
    text.length = text.pieces = 0;
    CHECK(ak_stats_write(format, collect_text, &text));
    return text.bytes;
}

static const char *tracking_word(void) {
    if (getenv("CHECK_NO_TRACK_BUILD") != NULL) return "built without tracking";
    return is_tracked() ? "tracking sites" : "tracking off";
}

TEST(stats_text) {
    void *block = ak_alloc(4321);
    CHECK(block != NULL);
    const char *got = written(AK_TEXT);
    char first[200];
    snprintf(first, sizeof first, "allokit %s, backend %s, %s\n", ak_version(), ak_backend_name(), tracking_word());
    CHECK_MSG(strncmp(got, first, strlen(first)) == 0, "first line: %.100s", got);
    /* The rows whose figures do not move between two calls, to the letter; of the others the label. */
    ak_stats_t stats = stats_now();
    char shown[6][32], live[32], rows[400];
    for (int i = 0; i < 6; i++) {
        if ((stats.known >> i & 1) != 0) {
            snprintf(shown[i], sizeof shown[i], "%" PRIu64, fields_of(&stats)[i]);
        } else {
            snprintf(shown[i], sizeof shown[i], "unknown");
        }
    }
    if ((stats.known & 3) == 3) {
        snprintf(live, sizeof live, "%" PRIu64, stats.alloc_count - stats.free_count);
    } else {
        snprintf(live, sizeof live, "unknown");
    }
    snprintf(rows, sizeof rows,
             "\n  allocated  %9s blocks%13s bytes\n  freed      %9s blocks%13s bytes\n  live       %9s blocks%13s bytes\n"
             "  peak       %29s bytes\n  reserved   ",
             shown[0], shown[2], shown[1], shown[3], live, shown[4], shown[5]);
    CHECK_MSG(strstr(got, rows) != NULL, "not %s in: %s", rows, got);
    CHECK_MSG(strstr(got, "\n  committed  ") != NULL && strstr(got, "\n  mapped peak") != NULL && strstr(got, "\n  threads    ") != NULL,
              "rows are missing in: %s", got);
    char heading[100];
    snprintf(heading, sizeof heading, "\n%s's own statistics:\n", ak_backend_name());
    CHECK_MSG((strstr(got, heading) != NULL) == !is_backend("native"), "own statistics: %s", got);
    ak_free(block);
}

TEST(stats_print_goes_to_stderr) {
    capture_begin();
    ak_stats_print();
    const char *printed = capture_end();
    char first[200];
    snprintf(first, sizeof first, "allokit %s, backend %s, %s\n", ak_version(), ak_backend_name(), tracking_word());
    CHECK_MSG(strncmp(printed, first, strlen(first)) == 0, "printed: %.100s", printed);
}

static const char *const names[FIELDS] = {"alloc_count",    "free_count",      "alloc_bytes",       "free_bytes", "current_bytes", "peak_bytes",
                                         "reserved_bytes", "committed_bytes", "mapped_peak_bytes", "threads"};

TEST(stats_json) {
    void *block = ak_alloc(4321);
    CHECK(block != NULL);
    ak_stats_t stats = stats_now();
    const char *got = written(AK_JSON);
    char piece[200];
    snprintf(piece, sizeof piece, "{\"allokit\":\"%s\",\"backend\":\"%s\",\"tracking\":\"%s\",\"stats\":{", ak_version(), ak_backend_name(),
             getenv("CHECK_NO_TRACK_BUILD") != NULL ? "none" : is_tracked() ? "sites" : "off");
    CHECK_MSG(strncmp(got, piece, strlen(piece)) == 0, "begins: %s", got);
    for (int i = 0; i < FIELDS; i++) {
        if ((stats.known >> i & 1) == 0) {
            snprintf(piece, sizeof piece, "\"%s\":null", names[i]);
        } else if (i < 6 && is_tracked()) {
            snprintf(piece, sizeof piece, "\"%s\":%" PRIu64, names[i], fields_of(&stats)[i]);
        } else {
            snprintf(piece, sizeof piece, "\"%s\":", names[i]);
        }
        CHECK_MSG(strstr(got, piece) != NULL, "no %s in %s", piece, got);
    }
    ak_free(block);
}

TEST(stats_prometheus) {
    void *block = ak_alloc(4321);
    CHECK(block != NULL);
    ak_stats_t stats = stats_now();
    const char *got = written(AK_PROMETHEUS);
    for (int i = 0; i < FIELDS; i++) {
        char piece[200], value[300];
        const char *total = i < 4 ? "_total" : "";
        snprintf(piece, sizeof piece, "# TYPE allokit_%s%s %s\n", names[i], total, i < 4 ? "counter" : "gauge");
        snprintf(value, sizeof value, "\nallokit_%s%s{backend=\"%s\"} ", names[i], total, ak_backend_name());
        bool known = (stats.known >> i & 1) != 0;
        CHECK_MSG((strstr(got, piece) != NULL) == known, "%s, known %d, in %s", piece, known, got);
        CHECK_MSG((strstr(got, value) != NULL) == known, "%s, known %d, in %s", value, known, got);
        snprintf(piece, sizeof piece, "# HELP allokit_%s%s ", names[i], total);
        CHECK((strstr(got, piece) != NULL) == known);
    }
    CHECK(text.length == 0 || got[text.length - 1] == '\n');
    ak_free(block);
}

TEST(stats_openmetrics) {
    void *block = ak_alloc(4321);
    CHECK(block != NULL);
    ak_stats_t stats = stats_now();
    const char *got = written(AK_OPENMETRICS);
    for (int i = 0; i < FIELDS; i++) {
        char piece[200], value[300], unit[200];
        bool is_bytes = strstr(names[i], "_bytes") != NULL, known = (stats.known >> i & 1) != 0;
        snprintf(piece, sizeof piece, "# TYPE allokit_%s %s\n", names[i], i < 4 ? "counter" : "gauge");
        snprintf(unit, sizeof unit, "# UNIT allokit_%s bytes\n", names[i]);
        snprintf(value, sizeof value, "\nallokit_%s%s{backend=\"%s\"} ", names[i], i < 4 ? "_total" : "", ak_backend_name());
        CHECK_MSG((strstr(got, piece) != NULL) == known, "%s, known %d, in %s", piece, known, got);
        CHECK_MSG((strstr(got, unit) != NULL) == (known && is_bytes), "%s, known %d, in %s", unit, known, got);
        CHECK_MSG((strstr(got, value) != NULL) == known, "%s, known %d, in %s", value, known, got);
    }
    CHECK(text.length >= 6 && strcmp(got + text.length - 6, "# EOF\n") == 0);
    ak_free(block);
}

TEST(stats_write_refuses_what_it_does_not_know) {
    errno = 0;
    CHECK(!ak_stats_write((ak_format_t)opaque_size(4), collect_text, &text) && errno == EINVAL);
    errno = 0;
    CHECK(!ak_stats_write(AK_TEXT, NULL, NULL) && errno == EINVAL);
}

/* A writer may use the library itself. */
static void allocating_writer(const char *piece, size_t length, void *argument) {
    void *copy = ak_memdup(piece, length);
    CHECK(copy != NULL);
    ak_free(copy);
    *(size_t *)argument += length;
}
TEST(stats_writer_may_allocate) {
    alarm(20); /* a lock that is held around the writer would wait forever */
    for (int format = 0; format < 4; format++) {
        size_t length = 0;
        CHECK(ak_stats_write((ak_format_t)format, allocating_writer, &length));
        CHECK(length > 20 || format >= 2);
    }
}

/* ---- at exit ------------------------------------------------------------------------------------------------------ */

CHILD(leaves_something) {
    void *kept = ak_alloc(12345);
    CHECK(kept != NULL);
}
static child_result_t result;

TEST(stats_at_exit) {
    static const char *const formats[] = {"text", "json", "prometheus", "openmetrics"};
    for (int i = 0; i < 4; i++) {
        char entry[100];
        snprintf(entry, sizeof entry, "ALLOKIT_STATS=%s", formats[i]);
        const char *environment[2];
        environment[0] = entry;
        environment[1] = NULL;
        run_child("leaves_something", environment, 0, &result);
        CHECK_CHILD_OK(result);
        const char *piece = i == 0 ? "allokit 0" : i == 1 ? "{\"allokit\":\"" : "{backend=\"";
        bool empty = i >= 2 && stats_now().known == 0;
        CHECK_MSG(empty || strstr(result.err, piece) != NULL, "%s printed: %s", entry, result.err);
        if (is_tracked()) CHECK_MSG(strstr(result.err, "12345") != NULL, "%s printed: %s", entry, result.err);
    }
}

TEST(stats_at_exit_into_a_file) {
    char path[] = "/tmp/allokit-stats-XXXXXX";
    int file = mkstemp(path);
    CHECK(file >= 0);
    char entry[100];
    snprintf(entry, sizeof entry, "ALLOKIT_STATS=json:%s", path);
    const char *environment[2];
    environment[0] = entry;
    environment[1] = NULL;
    run_child("leaves_something", environment, 0, &result);
    CHECK_CHILD_OK(result);
    close(file);
    file = open(path, O_RDONLY); /* it may have been replaced */
    CHECK(file >= 0);
    char got[4096];
    ssize_t length = read(file, got, sizeof got - 1);
    close(file);
    unlink(path);
    CHECK(length > 0);
    got[length] = 0;
    CHECK_MSG(strncmp(got, "{\"allokit\":\"", 12) == 0, "file: %s", got);
    CHECK_MSG(result.err[0] == 0, "stderr: %s", result.err);
    /* A path that cannot be written: one line, the program's status stays. */
    environment[0] = "ALLOKIT_STATS=json:/nonexistent/file";
    run_child("leaves_something", environment, 0, &result);
    CHECK_CHILD_OK(result);
    CHECK_MSG(strstr(result.err, "/nonexistent/file") != NULL, "stderr: %s", result.err);
}
