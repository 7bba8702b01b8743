/*
 * Syntax trees: expressions are built of nodes of several sizes, some with names and argument lists, folded (which
 * replaces subtrees) and freed; a few long-lived ones stay.
 */
#include "bench.h"

enum { TREES = 80000, KEPT = 400 };

typedef enum kind { NUMBER, NAME, UNARY, BINARY, CALL } node_kind_t;

typedef struct node {
    node_kind_t kind;
    unsigned count;
    union {
        int64_t number;
        char *name;
        struct node *child[2];
        struct node **arguments;
    } as;
} node_t;

static node_t *node(node_kind_t kind, size_t size, uint64_t *ops)
{
    node_t *made = must(malloc(size));
    made->kind = kind;
    made->count = 0;
    ++*ops;
    return made;
}

static node_t *grow(uint64_t *seed, int depth, uint64_t *ops)
{
    uint64_t r = next_random(seed);
    if (depth == 0 || r % 16 == 0) {
        if (r >> 8 & 1) {
            node_t *made = node(NUMBER, sizeof *made, ops);
            made->as.number = (int64_t)(r >> 32 & 0xFFFF);
            return made;
        }
        node_t *made = node(NAME, sizeof *made, ops);
        size_t length = 3 + (size_t)(r >> 32) % 20;
        made->as.name = must(malloc(length + 1));
        ++*ops;
        memset(made->as.name, 'a' + (int)(r >> 40 & 15), length);
        made->as.name[length] = 0;
        return made;
    }
    if (r % 16 < 3) {
        node_t *made = node(UNARY, sizeof *made, ops);
        made->count = 1;
        made->as.child[0] = grow(seed, depth - 1, ops);
        return made;
    }
    if (r % 16 < 13) {
        node_t *made = node(BINARY, sizeof *made + 16, ops); /* an operator's extra fields */
        made->count = 2;
        made->as.child[0] = grow(seed, depth - 1, ops);
        made->as.child[1] = grow(seed, depth - 1, ops);
        return made;
    }
    node_t *made = node(CALL, sizeof *made, ops);
    unsigned count = (unsigned)(r >> 50) % 4;
    made->as.arguments = NULL;
    while (made->count < count) {
        made->as.arguments = must(realloc(made->as.arguments, (made->count + 1) * sizeof *made->as.arguments));
        made->as.arguments[made->count] = grow(seed, depth - 1, ops);
        made->count++;
        ++*ops;
    }
    return made;
}

static void drop(node_t *tree)
{
    if (tree->kind == NAME) free(tree->as.name);
    if (tree->kind == UNARY || tree->kind == BINARY) {
        for (unsigned i = 0; i < tree->count; i++) drop(tree->as.child[i]);
    }
    if (tree->kind == CALL) {
        for (unsigned i = 0; i < tree->count; i++) drop(tree->as.arguments[i]);
        free(tree->as.arguments);
    }
    free(tree);
}

/* Replaces what is constant by its value. */
static node_t *fold(node_t *tree, uint64_t *ops)
{
    if (tree->kind == CALL) {
        for (unsigned i = 0; i < tree->count; i++) tree->as.arguments[i] = fold(tree->as.arguments[i], ops);
    }
    if (tree->kind != UNARY && tree->kind != BINARY) return tree;
    int64_t value = 0;
    bool constant = true;
    for (unsigned i = 0; i < tree->count; i++) {
        node_t *child = tree->as.child[i] = fold(tree->as.child[i], ops);
        if (child->kind == NUMBER) value = value * 3 + child->as.number;
        else constant = false;
    }
    if (!constant) return tree;
    drop(tree);
    node_t *made = node(NUMBER, sizeof *made, ops);
    made->as.number = value & 0xFFFF;
    return made;
}

static uint64_t sum(const node_t *tree)
{
    uint64_t total = tree->kind;
    if (tree->kind == NUMBER) total += (uint64_t)tree->as.number;
    if (tree->kind == NAME) total += strlen(tree->as.name);
    if (tree->kind == UNARY || tree->kind == BINARY) {
        for (unsigned i = 0; i < tree->count; i++) total += sum(tree->as.child[i]);
    }
    if (tree->kind == CALL) {
        for (unsigned i = 0; i < tree->count; i++) total += sum(tree->as.arguments[i]);
    }
    return total;
}

static void *work(void *arg)
{
    worker_t *worker = arg;
    node_t *kept[KEPT] = {0};
    uint64_t trees = scaled(worker->bench, TREES);
    for (uint64_t i = 0; i < trees; i++) {
        node_t *tree = fold(grow(&worker->seed, 11, &worker->ops), &worker->ops);
        worker->check += sum(tree);
        node_t **place = &kept[next_random(&worker->seed) % KEPT];
        if (i % 16 == 0) {
            if (*place != NULL) drop(*place);
            *place = tree;
        } else {
            drop(tree);
        }
    }
    for (int i = 0; i < KEPT; i++) {
        if (kept[i] != NULL) drop(kept[i]);
    }
    return NULL;
}

int main(int argc, char **argv)
{
    bench_t bench = bench_begin(argc, argv, 1, "");
    worker_t sum_of = run_workers(&bench, work, NULL, bench.threads);
    return bench_end(&bench, sum_of.ops, sum_of.check);
}
