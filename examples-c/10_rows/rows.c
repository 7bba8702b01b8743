/*
 * 10_rows - rows of a database, fetched on a worker thread and handed over to the main thread.
 *
 * What SQLite says about a row holds until its next step, so the worker copies a batch of rows into a scratch arena: temporaries
 * of this thread, which end with the stretch. The main thread takes over what it wants to keep, into an arena of its own. So
 * each arena is used by one thread only and needs no lock; the hand-over needs one, and is two waits.
 *
 *     worker: scratch begin, copy a batch of rows ──hand over──> main: copy into its arena ──done──> worker: scratch end
 *
 * The scratch arena's memory is that of one batch, however many rows there are; the program checks it.
 *
 *     ./10_rows [rows]
 */
#include "alloc.h"

#include <inttypes.h>
#include <pthread.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BATCH = 100 };

typedef struct row {
    int64_t id;
    double price;
    const char *name, *note; /* `note` may be NULL */
} row_t;

/* Rows, in the arena of whoever holds it. */
typedef struct batch {
    size_t count;
    row_t rows[BATCH];
} batch_t;

/* Room for one batch, between the two threads. */
typedef struct handover {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    const batch_t *batch; /* offered by the worker; NULL once the main thread has its copy */
    bool over;
} handover_t;

static _Noreturn void die(const char *what) {
    fprintf(stderr, "rows: %s\n", what);
    exit(EXIT_FAILURE);
}

static void check(sqlite3 *db, int status) {
    if (status != SQLITE_OK && status != SQLITE_ROW && status != SQLITE_DONE) die(sqlite3_errmsg(db));
}

/* ---- the hand-over ---- */

/* The worker offers a batch and waits until it is copied: then its memory is the worker's own again. */
static void offer(handover_t *handover, const batch_t *batch) {
    pthread_mutex_lock(&handover->lock);
    handover->batch = batch;
    pthread_cond_signal(&handover->changed);
    while (handover->batch != NULL) pthread_cond_wait(&handover->changed, &handover->lock);
    pthread_mutex_unlock(&handover->lock);
}

static void end(handover_t *handover) {
    pthread_mutex_lock(&handover->lock);
    handover->over = true;
    pthread_cond_signal(&handover->changed);
    pthread_mutex_unlock(&handover->lock);
}

static const char *copy_text(ak_arena_t *arena, const char *text) {
    const char *copy = text != NULL ? ak_arena_strdup(arena, text) : NULL;
    if (text != NULL && copy == NULL) die("out of memory");
    return copy;
}

/* The next batch, copied into the arena; NULL when there are no more. */
static batch_t *take_over(handover_t *handover, ak_arena_t *arena) {
    batch_t *mine = NULL;
    pthread_mutex_lock(&handover->lock);
    while (handover->batch == NULL && !handover->over) pthread_cond_wait(&handover->changed, &handover->lock);
    if (handover->batch != NULL) {
        mine = ak_arena_memdup(arena, handover->batch, sizeof *mine);
        if (mine == NULL) die("out of memory");
        for (size_t i = 0; i < mine->count; i++) {
            mine->rows[i].name = copy_text(arena, mine->rows[i].name);
            mine->rows[i].note = copy_text(arena, mine->rows[i].note);
        }
        handover->batch = NULL;
        pthread_cond_signal(&handover->changed);
    }
    pthread_mutex_unlock(&handover->lock);
    return mine;
}

/* ---- the worker ---- */

typedef struct job {
    sqlite3 *db;
    handover_t *handover;
    size_t scratch_bytes; /* the most that the scratch arena took */
} job_t;

static void *fetch(void *arg) {
    job_t *job = arg;
    sqlite3_stmt *query = NULL;
    check(job->db, sqlite3_prepare_v2(job->db, "SELECT id, price, name, note FROM product ORDER BY id", -1, &query, NULL));
    for (bool more = true; more;) {
        ak_scratch_t scratch = ak_scratch_begin();
        batch_t *batch = scratch.arena != NULL ? ak_arena_calloc(scratch.arena, 1, sizeof(batch_t)) : NULL;
        if (batch == NULL) die("out of memory");
        while (batch->count < BATCH && more) {
            int status = sqlite3_step(query);
            check(job->db, status);
            more = status == SQLITE_ROW;
            if (!more) break;
            batch->rows[batch->count++] = (row_t){
                .id = sqlite3_column_int64(query, 0),
                .price = sqlite3_column_double(query, 1),
                .name = copy_text(scratch.arena, (const char *)sqlite3_column_text(query, 2)),
                .note = copy_text(scratch.arena, (const char *)sqlite3_column_text(query, 3)),
            };
        }
        if (batch->count > 0) offer(job->handover, batch);
        ak_arena_stats_t st = {.struct_size = sizeof st};
        if (ak_arena_stats(scratch.arena, &st) && st.reserved_bytes > job->scratch_bytes) job->scratch_bytes = st.reserved_bytes;
        ak_scratch_end(scratch); /* the batch and its texts */
    }
    check(job->db, sqlite3_finalize(query));
    end(job->handover);
    return NULL;
}

/* ---- the database ---- */

/* The rows follow from their numbers, so what comes back can be checked. */
static double price_of(int64_t id) { return (double)(id * 7919 % 100000) / 100; }

static void name_of(int64_t id, char *name, size_t room) { snprintf(name, room, "product %0*" PRId64, (int)(id % 40) + 1, id); }

static void fill(sqlite3 *db, int64_t rows) {
    sqlite3_stmt *insert = NULL;
    check(db, sqlite3_exec(db, "CREATE TABLE product(id INTEGER PRIMARY KEY, price REAL, name TEXT, note TEXT); BEGIN", NULL, NULL, NULL));
    check(db, sqlite3_prepare_v2(db, "INSERT INTO product VALUES (?, ?, ?, ?)", -1, &insert, NULL));
    for (int64_t id = 1; id <= rows; id++) {
        char name[80];
        name_of(id, name, sizeof name);
        check(db, sqlite3_bind_int64(insert, 1, id));
        check(db, sqlite3_bind_double(insert, 2, price_of(id)));
        check(db, sqlite3_bind_text(insert, 3, name, -1, SQLITE_TRANSIENT));
        check(db, id % 3 == 0 ? sqlite3_bind_null(insert, 4) : sqlite3_bind_text(insert, 4, name + 8, -1, SQLITE_TRANSIENT));
        check(db, sqlite3_step(insert));
        check(db, sqlite3_reset(insert));
    }
    check(db, sqlite3_finalize(insert));
    check(db, sqlite3_exec(db, "COMMIT", NULL, NULL, NULL));
}

static void verify(const row_t *row, int64_t id) {
    char name[80];
    name_of(id, name, sizeof name);
    bool note_is_right = id % 3 == 0 ? row->note == NULL : row->note != NULL && strcmp(row->note, name + 8) == 0;
    if (row->id != id || row->price != price_of(id) || strcmp(row->name, name) != 0 || !note_is_right) die("a row is wrong");
}

int main(int argc, char **argv) {
    long rows = argc > 1 ? strtol(argv[1], NULL, 10) : 50000;
    if (rows < 10 * BATCH || rows > 10000000) {
        fprintf(stderr, "usage: rows [rows]   (%d to 10000000)\n", 10 * BATCH);
        return 2;
    }
    sqlite3 *db = NULL;
    check(db, sqlite3_open(":memory:", &db));
    fill(db, rows);

    ak_arena_t *arena = ak_arena_new(&(ak_arena_opts_t){.struct_size = sizeof(ak_arena_opts_t), .name = "rows"});
    const batch_t **batches = AK_ARRAY(const batch_t *, (size_t)rows / BATCH + 1);
    if (arena == NULL || batches == NULL) die("out of memory");
    handover_t handover = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
    job_t job = {.db = db, .handover = &handover};
    pthread_t worker;
    if (pthread_create(&worker, NULL, fetch, &job) != 0) die("no thread");
    size_t count = 0;
    for (const batch_t *batch; (batch = take_over(&handover, arena)) != NULL;) batches[count++] = batch;
    pthread_join(worker, NULL);
    check(db, sqlite3_close(db));

    /* Database, worker and its scratch arena are gone; the rows are here. */
    int64_t id = 0;
    for (size_t i = 0; i < count; i++)
        for (size_t k = 0; k < batches[i]->count; k++) verify(&batches[i]->rows[k], ++id);
    if (id != rows) die("rows are missing");
    ak_arena_stats_t st = {.struct_size = sizeof st};
    if (!ak_arena_stats(arena, &st)) return EXIT_FAILURE;
    printf("%ld rows in %zu batches, all right: %zu KiB in the main thread's arena, at most %zu KiB in the worker's scratch arena\n", rows,
           count, st.used_bytes / 1024, job.scratch_bytes / 1024);
    ak_free(batches);
    ak_arena_destroy(arena);
    if (job.scratch_bytes > 200 << 10) die("the scratch arena grew with the rows");
    return EXIT_SUCCESS;
}
