/* What a program may do wrong when there is no memory, one function each; `allokit oom-sweep` finds each by its line. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* (The compiler is not to see through it: it would warn.) */
static void release(void *block)
{
    void *volatile hidden = block;
    free(hidden);
}

/* Handled: whoever calls is told. */
static char *good(void)
{
    char *text = malloc(101);
    if (text != NULL)
        strcpy(text, "good");
    return text;
}

/* Writes to what it has not got. */
static char *unchecked(void)
{
    char *text = malloc(102);
    strcpy(text, "unchecked");
    return text;
}

/* Forgets the first block when there is no second. */
static char *forgets(void)
{
    char *first = malloc(103), *second;
    if (first == NULL)
        return NULL;
    second = malloc(104);
    if (second == NULL)
        return NULL;
    free(second);
    return first;
}

/* Tries again, for ever. */
static char *stubborn(void)
{
    char *text;
    while ((text = malloc(105)) == NULL)
        usleep(1000);
    return text;
}

/* Frees the first block twice when there is no second. */
static char *twice(void)
{
    char *first = malloc(106), *second;
    if (first == NULL)
        return NULL;
    second = malloc(107);
    if (second == NULL)
        release(first);
    release(second != NULL ? second : first);
    return second != NULL ? first : NULL;
}

/* Gives up at once, as many programs do: the system takes back what is live. */
static void *or_die(size_t size)
{
    void *block = malloc(size);
    if (block == NULL) {
        fputs("oom: out of memory\n", stderr);
        exit(3);
    }
    return block;
}

static void *or_abort(size_t size)
{
    void *block = malloc(size);
    if (block == NULL)
        abort();
    return block;
}

/* Says nothing, and goes on without. */
static void quiet(void)
{
    char *text = strdup("a line that is missing sometimes");
    if (text != NULL)
        puts(text);
    free(text);
}

/* Two callers of one wrapper: only one of them looks. */
static char *wrapped(void)
{
    return malloc(110);
}

static int careful(void)
{
    char *text = wrapped();
    if (text == NULL)
        return 0;
    free(text);
    return 1;
}

static int careless(void)
{
    volatile char *text = wrapped();
    text[0] = 'x';
    free((char *)text);
    return 1;
}

int main(void)
{
    char *(*const all[])(void) = {good, unchecked, forgets, stubborn, twice};
    size_t n;
    int whole = 1;
    for (n = 0; n < sizeof all / sizeof *all; n++) {
        char *text = all[n]();
        if (text == NULL)
            whole = 0;
        free(text);
    }
    free(or_die(108));
    free(or_abort(109));
    quiet();
    whole &= careful();
    whole &= careless();
    return whole ? 0 : 1;
}
