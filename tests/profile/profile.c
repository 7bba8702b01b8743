/*
 * profile.c - what the tracker tells of live blocks: sites, snapshots, profiles. To be run with ALLOKIT_TRACK=sites, except
 * `untracked`. Usage: profile changes FOLDER | profile heaps FOLDER | profile growth FOLDER | profile untracked | profile leave
 */
#include "alloc.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(what)                                                          \
    do {                                                                     \
        if (!(what)) {                                                       \
            fprintf(stderr, "%s:%d: %s is not so\n", __FILE__, __LINE__, #what); \
            exit(1);                                                         \
        }                                                                    \
    } while (0)

enum { MOST = 16 };
static void *kept[MOST];
static int count;

static void grow(int blocks) {
#line 100 "grow \"here\".c"
    for (int i = 0; i < blocks; i++) kept[count++] = ak_alloc(1000);
}
#line 31 "profile.c"

static void *once(void) {
#line 200 "once.c"
    return ak_alloc(50000);
}
#line 37 "profile.c"

static void to_file(const char *text, size_t length, void *arg) {
    fwrite(text, 1, length, (FILE *)arg);
}

static bool show(const ak_site_info_t *site, void *arg) {
    CHECK(site->struct_size >= sizeof *site);
    fprintf((FILE *)arg, "%s:%u %s %llu %llu\n", site->file ? site->file : "-", (unsigned)site->line,
            site->function ? site->function : "-", (unsigned long long)site->live_blocks,
            (unsigned long long)site->live_bytes);
    return true;
}

static bool stop(const ak_site_info_t *site, void *arg) {
    (void)site;
    (void)arg;
    return false;
}

static FILE *open_in(const char *folder, const char *name) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "w");
    CHECK(file != NULL);
    return file;
}

static void changes(const char *folder) {
    char path[4096];
    grow(3);
    void *big = once();
    ak_snapshot_t *first = ak_snapshot_take();
    CHECK(first != NULL);
    grow(2);
    ak_free(big);
    ak_snapshot_t *second = ak_snapshot_take();
    CHECK(second != NULL);
    big = once();
    struct { const char *name; const ak_snapshot_t *from, *to; ak_format_t format; } diffs[] = {
        {"first-second.txt", first, second, AK_TEXT}, {"first-second.json", first, second, AK_JSON},
        {"first-now.txt", first, NULL, AK_TEXT},      {"second-first.txt", second, first, AK_TEXT},
        {"same.txt", first, first, AK_TEXT},          {"same.json", second, second, AK_JSON},
    };
    for (size_t i = 0; i < sizeof diffs / sizeof diffs[0]; i++) {
        FILE *file = open_in(folder, diffs[i].name);
        CHECK(ak_snapshot_diff(diffs[i].from, diffs[i].to, diffs[i].format, to_file, file));
        fclose(file);
    }
    errno = 0;
    CHECK(!ak_snapshot_diff(NULL, second, AK_TEXT, to_file, stderr) && errno == EINVAL);
    errno = 0;
    CHECK(!ak_snapshot_diff(first, second, AK_PROMETHEUS, to_file, stderr) && errno == EINVAL);
    errno = 0;
    CHECK(!ak_snapshot_diff(first, second, AK_TEXT, NULL, NULL) && errno == EINVAL);

    FILE *file = open_in(folder, "sites.txt");
    CHECK(ak_site_visit(show, file) >= 2);
    fclose(file);
    CHECK(ak_site_visit(stop, NULL) == 1);
    errno = 0;
    CHECK(ak_site_visit(NULL, NULL) == 0 && errno == EINVAL);

    snprintf(path, sizeof path, "%s/live.pb", folder);
    CHECK(ak_profile_write(AK_PPROF, path));
    snprintf(path, sizeof path, "%s/live.folded", folder);
    CHECK(ak_profile_write(AK_FOLDED, path));
    snprintf(path, sizeof path, "%s/live.html", folder);
    CHECK(ak_profile_write(AK_HTML, path));
    snprintf(path, sizeof path, "%s/live.json", folder);
    CHECK(ak_profile_write(AK_PROFILE_JSON, path));
    errno = 0;
    CHECK(!ak_profile_write((ak_profile_t)7, path) && errno == EINVAL);
    errno = 0;
    CHECK(!ak_profile_write(AK_PPROF, NULL) && errno == EINVAL);
    errno = 0;
    CHECK(!ak_profile_write(AK_PPROF, "/dev/full") && errno == ENOSPC);
    errno = 0;
    CHECK(!ak_profile_write(AK_PPROF, "/nonexistent/folder/live.pb") && errno == ENOENT);

    ak_snapshot_free(first);
    ak_snapshot_free(second);
    ak_snapshot_free(NULL);
    ak_free(big);
    while (count > 0) ak_free(kept[--count]);
}

/* Nothing is known: every function says so and none crashes. */
static void untracked(void) {
    errno = 0;
    CHECK(ak_snapshot_take() == NULL && errno == ENOTSUP);
    errno = 0;
    CHECK(ak_site_visit(show, stderr) == 0 && errno == ENOTSUP);
    errno = 0;
    CHECK(!ak_profile_write(AK_FOLDED, "/dev/null") && errno == ENOTSUP);
    ak_snapshot_free(NULL);
    errno = 0;
    CHECK(!ak_leaks_write(AK_JSON, to_file, stderr) && errno == ENOTSUP);
    errno = 0;
    CHECK(!ak_growth_take() && errno == ENOTSUP);
    errno = 0;
    CHECK(!ak_growth_write(AK_JSON, to_file, stderr) && errno == ENOTSUP);
}

/* Six snapshots: `grow` grows in each of the five steps, `once` is there for a while, `plateau` comes once and stays. */
static void growth(const char *folder) {
    static const char *const names[] = {"text", "json", "lines"};
    static const ak_format_t formats[] = {AK_TEXT, AK_JSON, AK_LINES};
    char path[4096];
    void *big = NULL, *plateau = NULL;
    FILE *file = open_in(folder, "growth-none.txt");
    CHECK(ak_growth_write(AK_TEXT, to_file, file));
    fclose(file);
    for (int i = 0; i < 6; i++) {
        grow(2);
        if (i % 2 == 0) big = once(); else ak_free(big);
        if (i == 3)
#line 300 "plateau.c"
            plateau = ak_alloc(7000);
#line 154 "profile.c"
        CHECK(ak_growth_take());
    }
    ak_mark();
    grow(1);
    CHECK(!ak_assert_balanced("one since the mark"));
    CHECK(ak_growth_take());
    CHECK(!ak_assert_balanced("a snapshot is no mark"));
    for (int i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "growth.%s", names[i]);
        file = open_in(folder, path);
        CHECK(ak_growth_write(formats[i], to_file, file));
        fclose(file);
        snprintf(path, sizeof path, "leaks.%s", names[i]);
        file = open_in(folder, path);
        CHECK(ak_leaks_write(formats[i], to_file, file));
        fclose(file);
    }
    snprintf(path, sizeof path, "%s/growth-report.json", folder);
    CHECK(ak_profile_write(AK_PROFILE_JSON, path));
    for (int i = 0; i < 200; i++) CHECK(ak_growth_take());
    file = open_in(folder, "growth-many.json");
    CHECK(ak_growth_write(AK_JSON, to_file, file));
    fclose(file);
    errno = 0;
    CHECK(!ak_leaks_write(AK_PROMETHEUS, to_file, stderr) && errno == EINVAL);
    errno = 0;
    CHECK(!ak_leaks_write(AK_TEXT, NULL, NULL) && errno == EINVAL);
    errno = 0;
    CHECK(!ak_growth_write((ak_format_t)5, to_file, stderr) && errno == EINVAL);
    errno = 0;
    CHECK(!ak_growth_write(AK_TEXT, NULL, NULL) && errno == EINVAL);
    errno = 0;
    CHECK(!ak_stats_write(AK_LINES, to_file, stderr) && errno == EINVAL);
    ak_free(plateau);
}

/* Two heaps, one in the other, whose name must not end the page. */
static void heaps(const char *folder) {
    char path[4096];
    ak_heap_opts_t outer = {sizeof outer, "all", 1 << 20, NULL};
    ak_heap_t *all = ak_heap_new(&outer);
    CHECK(all != NULL);
    ak_heap_opts_t inner = {sizeof inner, "</script>\"7\"", 0, all};
    ak_heap_t *one = ak_heap_new(&inner);
    CHECK(one != NULL && ak_heap_alloc(one, 10000) != NULL);
    CHECK(ak_heap_alloc(one, 2 << 20) == NULL);
    snprintf(path, sizeof path, "%s/heaps.html", folder);
    CHECK(ak_profile_write(AK_HTML, path));
    errno = 0;
    CHECK(!ak_heap_assert_balanced(NULL, "none") && errno == EINVAL);
    CHECK(ak_heap_assert_balanced(all, "the outer") && !ak_heap_assert_balanced(one, "the inner"));
    CHECK(ak_heap_reset(one) && ak_heap_assert_balanced(one, "after a reset"));
    CHECK(ak_heap_destroy(one) && ak_heap_destroy(all));
    snprintf(path, sizeof path, "%s/no-heaps.json", folder);
    CHECK(ak_profile_write(AK_PROFILE_JSON, path));
}

int main(int argc, char **argv) {
    CHECK(argc > 1);
    if (strcmp(argv[1], "changes") == 0) changes(argv[2]);
    if (strcmp(argv[1], "heaps") == 0) heaps(argv[2]);
    if (strcmp(argv[1], "growth") == 0) growth(argv[2]);
    if (strcmp(argv[1], "untracked") == 0) untracked();
    if (strcmp(argv[1], "leave") == 0) grow(4);
    return 0;
}
