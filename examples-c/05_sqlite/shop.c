/*
 * 05_sqlite - SQLite as it comes, its malloc calls mapped onto Allokit by the compiler's command line:
 *
 *     cc -include alloc_override.h -c sqlite3.c
 *
 * Not a line of sqlite3.c is changed, and this program, compiled as usual, does not have to know. It runs a small shop's
 * database through its life, once in memory and once in a file: bulk insert, index, queries of several kinds, updates in
 * transactions, ad-hoc statements, delete, vacuum. It keeps the books in C beside it and compares every result.
 *
 *     ./05_sqlite [rounds]
 */
#include "alloc.h"

#include <inttypes.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { CUSTOMERS = 600, ORDERS = 5000, MAX_LINES = 6, PRODUCTS = 200, LOOKUPS = 4000, AD_HOC = 1500 };

/* What the database must say, kept in C. */
typedef struct books {
    int64_t lines;
    int64_t revenue; /* cents */
    int64_t note_bytes;
    int64_t spent[CUSTOMERS + 1];
} books_t;

/* ---- small wrappers: an error of SQLite ends the program with its text ---- */

static void check(sqlite3 *db, int status, const char *what) {
    if (status == SQLITE_OK || status == SQLITE_ROW || status == SQLITE_DONE) return;
    fprintf(stderr, "shop: %s: %s\n", what, db != NULL ? sqlite3_errmsg(db) : sqlite3_errstr(status));
    exit(EXIT_FAILURE);
}

static void expect(const char *what, int64_t found, int64_t right) {
    if (found == right) return;
    fprintf(stderr, "shop: %s is %" PRId64 ", but should be %" PRId64 "\n", what, found, right);
    exit(EXIT_FAILURE);
}

static void run(sqlite3 *db, const char *sql) {
    check(db, sqlite3_exec(db, sql, NULL, NULL, NULL), sql);
}

static sqlite3_stmt *prepare(sqlite3 *db, const char *sql) {
    sqlite3_stmt *statement = NULL;
    check(db, sqlite3_prepare_v2(db, sql, -1, &statement, NULL), sql);
    return statement;
}

/* Runs a statement whose result nobody wants, and makes it ready for the next time. */
static void step_and_reset(sqlite3 *db, sqlite3_stmt *statement) {
    check(db, sqlite3_step(statement), sqlite3_sql(statement));
    check(db, sqlite3_reset(statement), "reset");
}

/* The first column of the first row. */
static int64_t ask(sqlite3 *db, const char *sql) {
    sqlite3_stmt *statement = prepare(db, sql);
    check(db, sqlite3_step(statement), sql);
    int64_t value = sqlite3_column_int64(statement, 0);
    check(db, sqlite3_finalize(statement), sql);
    return value;
}

static uint32_t random_next(uint32_t *state) {
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

/* ---- the stages ---- */

static void create(sqlite3 *db) {
    run(db, "CREATE TABLE customer(id INTEGER PRIMARY KEY, name TEXT NOT NULL, town TEXT, profile TEXT);"
            "CREATE TABLE product(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, price INTEGER NOT NULL);"
            "CREATE TABLE orders(id INTEGER PRIMARY KEY, customer INTEGER NOT NULL REFERENCES customer(id),"
            "                    day INTEGER NOT NULL, note BLOB);"
            "CREATE TABLE line(orders INTEGER NOT NULL REFERENCES orders(id), product INTEGER NOT NULL,"
            "                  pieces INTEGER NOT NULL, PRIMARY KEY(orders, product)) WITHOUT ROWID;");
}

static int64_t price_of(int product) { return 99 + product * 37 % 5000; }

static void insert(sqlite3 *db, books_t *books) {
    static const char *const towns[] = {"Ghent", "Porto", "Oslo", "Graz", "Lviv", "Turku"};
    static unsigned char note[2000];
    uint32_t random = 7;
    char text[200];

    run(db, "BEGIN");
    sqlite3_stmt *customer = prepare(db, "INSERT INTO customer VALUES(?1, ?2, ?3, ?4)");
    for (int id = 1; id <= CUSTOMERS; id++) {
        const char *town = towns[id % 6];
        sqlite3_bind_int(customer, 1, id);
        snprintf(text, sizeof text, "customer number %d of %s", id, town);
        sqlite3_bind_text(customer, 2, text, -1, SQLITE_TRANSIENT); /* SQLite copies the text into a block of its own */
        sqlite3_bind_text(customer, 3, town, -1, SQLITE_STATIC);
        snprintf(text, sizeof text, "{\"mail\":\"c%d@example.com\",\"level\":%d,\"tags\":[\"a\",\"b%d\"]}", id, id % 5, id % 9);
        sqlite3_bind_text(customer, 4, text, -1, SQLITE_TRANSIENT);
        step_and_reset(db, customer);
    }
    sqlite3_finalize(customer);

    sqlite3_stmt *product = prepare(db, "INSERT INTO product VALUES(?1, printf('product %04d', ?1), ?2)");
    for (int id = 1; id <= PRODUCTS; id++) {
        sqlite3_bind_int(product, 1, id);
        sqlite3_bind_int64(product, 2, price_of(id));
        step_and_reset(db, product);
    }
    sqlite3_finalize(product);

    sqlite3_stmt *order = prepare(db, "INSERT INTO orders VALUES(?1, ?2, ?3, ?4)");
    sqlite3_stmt *line = prepare(db, "INSERT INTO line VALUES(?1, ?2, ?3)");
    for (int id = 1; id <= ORDERS; id++) {
        int buyer = 1 + (int)(random_next(&random) % CUSTOMERS);
        int bytes = (int)(random_next(&random) % sizeof note);
        memset(note, id & 0xff, (size_t)bytes);
        sqlite3_bind_int(order, 1, id);
        sqlite3_bind_int(order, 2, buyer);
        sqlite3_bind_int(order, 3, id / 20);
        sqlite3_bind_blob(order, 4, note, bytes, SQLITE_TRANSIENT);
        step_and_reset(db, order);
        books->note_bytes += bytes;

        int count = 1 + (int)(random_next(&random) % MAX_LINES);
        for (int i = 0; i < count; i++) {
            int product_id = 1 + (id * 13 + i * 31) % PRODUCTS;
            int pieces = 1 + (id + i) % 4;
            sqlite3_bind_int(line, 1, id);
            sqlite3_bind_int(line, 2, product_id);
            sqlite3_bind_int(line, 3, pieces);
            step_and_reset(db, line);
            books->lines++;
            books->revenue += pieces * price_of(product_id);
            books->spent[buyer] += pieces * price_of(product_id);
        }
    }
    sqlite3_finalize(order);
    sqlite3_finalize(line);
    run(db, "COMMIT");
}

static void index_tables(sqlite3 *db) {
    run(db, "CREATE INDEX orders_by_customer ON orders(customer, day);"
            "CREATE INDEX line_by_product ON line(product, pieces);"
            "CREATE INDEX customer_by_name ON customer(town, name COLLATE NOCASE);"
            "CREATE INDEX customer_by_level ON customer(json_extract(profile, '$.level'));"
            "ANALYZE;");
}

static void query(sqlite3 *db, const books_t *books) {
    expect("the number of lines", ask(db, "SELECT count(*) FROM line"), books->lines);
    expect("the bytes of notes", ask(db, "SELECT sum(length(note)) FROM orders"), books->note_bytes);
    expect("the revenue", ask(db, "SELECT sum(pieces * price) FROM line JOIN product ON product.id = product"),
           books->revenue);
    expect("customers of level 3", ask(db, "SELECT count(*) FROM customer WHERE json_extract(profile, '$.level') = 3"),
           CUSTOMERS / 5);
    expect("customers in Oslo", ask(db, "SELECT count(*) FROM customer WHERE name LIKE '%number % of oslo'"),
           CUSTOMERS / 6);
    expect("tags by json_each", ask(db, "SELECT count(*) FROM customer, json_each(profile, '$.tags')"), 2 * CUSTOMERS);
    expect("days without a gap",
           ask(db, "WITH RECURSIVE days(d) AS (SELECT 0 UNION ALL SELECT d + 1 FROM days WHERE d < (SELECT max(day) FROM "
                   "orders)) SELECT count(*) FROM days WHERE d IN (SELECT day FROM orders)"),
           ORDERS / 20 + 1);

    /* One row for each customer: a join of four tables, grouped and sorted; the texts come out as fresh strings. */
    sqlite3_stmt *spent = prepare(db, "SELECT customer.id, sum(pieces * price), group_concat(DISTINCT upper(product.name))"
                                      "  FROM customer JOIN orders ON orders.customer = customer.id"
                                      "  JOIN line ON line.orders = orders.id JOIN product ON product.id = line.product"
                                      "  GROUP BY customer.id ORDER BY 2 DESC, 1");
    int64_t last = INT64_MAX, total = 0;
    while (sqlite3_step(spent) == SQLITE_ROW) {
        int id = sqlite3_column_int(spent, 0);
        int64_t sum = sqlite3_column_int64(spent, 1);
        expect("what a customer spent", sum, books->spent[id]);
        expect("the order of customers", sum <= last, true);
        expect("the list of names", strncmp((const char *)sqlite3_column_text(spent, 2), "PRODUCT 0", 9), 0);
        last = sum;
        total += sum;
    }
    check(db, sqlite3_finalize(spent), "the customers' list");
    expect("the sum over customers", total, books->revenue);

    /* Many look-ups through one prepared statement, as a web application does. */
    sqlite3_stmt *lookup = prepare(db, "SELECT o.id, o.note, c.name || ' (' || c.town || ')' FROM orders o"
                                       "  JOIN customer c ON c.id = o.customer WHERE o.id = ?1");
    uint32_t random = 99;
    for (int i = 0; i < LOOKUPS; i++) {
        int id = 1 + (int)(random_next(&random) % ORDERS);
        sqlite3_bind_int(lookup, 1, id);
        check(db, sqlite3_step(lookup), "look-up");
        expect("the id looked up", sqlite3_column_int(lookup, 0), id);
        const unsigned char *note = sqlite3_column_blob(lookup, 1);
        int bytes = sqlite3_column_bytes(lookup, 1);
        if (bytes > 0) expect("a note's last byte", note[bytes - 1], id & 0xff);
        expect("a customer's name", strncmp((const char *)sqlite3_column_text(lookup, 2), "customer number ", 16), 0);
        sqlite3_reset(lookup);
    }
    sqlite3_finalize(lookup);
}

/* Statements put together as text and parsed each time: the parser and code generator live on small blocks. */
static void ad_hoc(sqlite3 *db, const books_t *books) {
    uint32_t random = 5;
    for (int i = 0; i < AD_HOC; i++) {
        int id = 1 + (int)(random_next(&random) % CUSTOMERS);
        char *sql = sqlite3_mprintf("SELECT coalesce(sum(l.pieces * p.price), 0) FROM orders o, line l, product p"
                                    " WHERE o.customer = %d AND l.orders = o.id AND p.id = l.product AND %Q IS NOT NULL",
                                    id, "it's ad hoc");
        if (sql == NULL) exit(EXIT_FAILURE);
        expect("an ad-hoc sum", ask(db, sql), books->spent[id]);
        sqlite3_free(sql);
    }
}

static void update(sqlite3 *db, books_t *books) {
    run(db, "BEGIN; UPDATE product SET price = price + 10; SAVEPOINT doubt; UPDATE product SET price = 0;"
            "ROLLBACK TO doubt; COMMIT;");
    int64_t pieces = ask(db, "SELECT sum(pieces) FROM line");
    books->revenue += 10 * pieces;
    expect("the revenue after the rise", ask(db, "SELECT sum(pieces * price) FROM line JOIN product ON id = product"),
           books->revenue);

    run(db, "CREATE TRIGGER rename AFTER UPDATE OF town ON customer BEGIN"
            "  UPDATE customer SET name = replace(new.name, old.town, new.town) WHERE id = new.id; END;"
            "UPDATE customer SET town = 'Bergen' WHERE town = 'Oslo';"
            "UPDATE orders SET note = zeroblob(length(note) / 2) WHERE id % 3 = 0;");
    expect("names in Bergen", ask(db, "SELECT count(*) FROM customer WHERE name LIKE '% of Bergen'"), CUSTOMERS / 6);
}

static void delete_and_vacuum(sqlite3 *db) {
    run(db, "BEGIN; DELETE FROM line WHERE orders <= 2500; DELETE FROM orders WHERE id <= 2500; COMMIT;");
    expect("orders left", ask(db, "SELECT count(*) FROM orders"), ORDERS - 2500);
    expect("lines without an order", ask(db, "SELECT count(*) FROM line WHERE orders NOT IN (SELECT id FROM orders)"), 0);
    int64_t before = ask(db, "PRAGMA page_count");
    run(db, "VACUUM");
    expect("fewer pages after VACUUM", ask(db, "PRAGMA page_count") < before, true);

    sqlite3_stmt *integrity = prepare(db, "PRAGMA integrity_check");
    check(db, sqlite3_step(integrity), "integrity_check");
    expect("the integrity check", strcmp((const char *)sqlite3_column_text(integrity, 0), "ok"), 0);
    sqlite3_finalize(integrity);
}

/* The whole life of one database. */
static void life(const char *path, books_t *books) {
    *books = (books_t){0};
    sqlite3 *db = NULL;
    check(db, sqlite3_open(path, &db), path);
    run(db, "PRAGMA synchronous = OFF; PRAGMA cache_size = -4000"); /* a throw-away database; some 4 MB of page cache */
    create(db);
    insert(db, books);
    index_tables(db);
    query(db, books);
    ad_hoc(db, books);
    update(db, books);
    delete_and_vacuum(db);
    check(NULL, sqlite3_close(db), "close");
}

int main(int argc, char **argv) {
    long rounds = 1;
    if (argc > 1) rounds = strtol(argv[1], NULL, 10);
    if (rounds < 1 || argc > 2) {
        fprintf(stderr, "usage: sqlite [rounds]   (rounds: 1 or more)\n");
        return 2;
    }

    /* A folder of our own: the journal of the database lies beside it, and mkdtemp sees to it that nobody else is there. */
    const char *parent = getenv("TMPDIR");
    char folder[512], file[600];
    int length = snprintf(folder, sizeof folder, "%s/allokit-shop-XXXXXX", parent != NULL ? parent : "/tmp");
    if (length < 0 || (size_t)length >= sizeof folder || mkdtemp(folder) == NULL) {
        perror("shop: cannot make a temporary folder (set TMPDIR)");
        return EXIT_FAILURE;
    }
    snprintf(file, sizeof file, "%s/shop.db", folder);

    static books_t books;
    for (long round = 0; round < rounds; round++) {
        life(":memory:", &books);
        life(file, &books);
        remove(file);
    }
    rmdir(folder);
    check(NULL, sqlite3_shutdown(), "shutdown");

    printf("SQLite %s, in memory and in a file: %" PRId64 " lines, revenue %" PRId64 ", all results right\n",
           sqlite3_libversion(), books.lines, books.revenue);

    /* With tracking on, two proofs: SQLite's blocks did come from Allokit, and it gave back every one of them. */
    if (ak_track_get() != AK_TRACK_OFF) {
        ak_stats_t stats = {.struct_size = sizeof stats};
        if (!ak_stats_get(&stats) || stats.alloc_count < 10000) {
            fprintf(stderr, "shop: SQLite's blocks do not come from Allokit; was it compiled with alloc_override.h?\n");
            return EXIT_FAILURE;
        }
        if (!ak_assert_balanced("sqlite")) return EXIT_FAILURE;
    }
    return EXIT_SUCCESS;
}
