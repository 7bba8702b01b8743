/*
 * SQLite in memory: bulk insert, index, joins, text functions, updates in transactions, ad-hoc statements, delete, vacuum.
 * Usage: sqlite ROUNDS
 */
#include <sqlite3.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

static sqlite3 *db;

static void must(int status)
{
    if (status == SQLITE_OK || status == SQLITE_ROW || status == SQLITE_DONE) return;
    fprintf(stderr, "sqlite: %s\n", sqlite3_errmsg(db));
    exit(1);
}

static void run(const char *sql) { must(sqlite3_exec(db, sql, NULL, NULL, NULL)); }

static int64_t ask(const char *sql)
{
    sqlite3_stmt *statement;
    int64_t sum = 0;
    must(sqlite3_prepare_v2(db, sql, -1, &statement, NULL));
    while (sqlite3_step(statement) == SQLITE_ROW) sum += sqlite3_column_int64(statement, 0);
    must(sqlite3_finalize(statement));
    return sum;
}

static int64_t life(void)
{
    int64_t sum = 0;
    must(sqlite3_open(":memory:", &db));
    run("create table person(id integer primary key, name text, city text, note text);"
        "create table visit(person integer, day integer, cost real, remark text);");
    run("begin");
    run("with recursive n(i) as (select 1 union all select i + 1 from n where i < 6000) "
        "insert into person select i, printf('person %d', i * 7919 % 6007), 'city ' || i % 97, hex(i * 12345) from n");
    run("with recursive n(i) as (select 1 union all select i + 1 from n where i < 25000) "
        "insert into visit select 1 + i * 31 % 6000, i % 365, i % 1000 / 7.0, 'remark ' || substr(hex(i * i), 1, 9) from n");
    run("commit");
    run("create index visit_person on visit(person, day); create index person_city on person(city, name);");
    sum += ask("select count(*) + sum(length(name)) from person join visit on person.id = visit.person where day > 180");
    sum += ask("select length(group_concat(name, ', ')) from person group by city order by city");
    sum += ask("select count(*) from (select distinct upper(remark) || day from visit)");
    sum += ask("select sum(r) from (select row_number() over (partition by city order by name desc) r from person)");
    for (int i = 0; i < 1500; i++) {
        /* A new text each time: parsed and planned anew. */
        char sql[160];
        snprintf(sql, sizeof sql, "select count(*) from visit join person on person.id = visit.person where person.id = %d "
                                  "and (day > %d or remark like '%%%d%%')", i * 13 % 6000, i % 365, i % 10);
        sum += ask(sql);
    }
    run("begin; update person set note = note || note, name = name || ' changed' where id % 3 = 0; commit");
    run("delete from visit where day % 4 = 0; vacuum");
    sum += ask("select count(*) + sum(length(note)) from person");
    must(sqlite3_close(db));
    return sum;
}

int main(int argc, char **argv)
{
    int64_t sum = 0;
    for (int rounds = argc > 1 ? atoi(argv[1]) : 1; rounds > 0; rounds--) sum += life();
    printf("%lld\n", (long long)sum);
    return 0;
}
