/*
 * 02_leak - a program that forgets two kinds of blocks, and the report that names the lines.
 *
 * Built with AK_TRACK, each ak_ call passes its file, line and function; run with ALLOKIT_TRACK=sites, the library
 * remembers them. ak_leaks_print() lists what is live, most bytes first:
 *
 *     ALLOKIT_TRACK=sites ./02_leak
 *
 * ALLOKIT_LEAKS=1 prints the same list at exit, without a call in the program.
 */
#include "alloc.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct person {
    char *name;
    unsigned char *picture; /* bug: person_free forgets it */
} person_t;

static person_t *person_new(const char *name) {
    person_t *person = AK_NEW(person_t);
    if (person == NULL) return NULL;
    person->name = ak_strdup(name);
    person->picture = ak_alloc(4096);
    if (person->picture != NULL) memset(person->picture, 0, 4096);
    return person;
}

static void person_free(person_t *person) {
    ak_free(person->name);
    ak_free(person);
}

int main(void) {
    static const char *const names[] = {"Ada", "Grace", "Barbara"};
    size_t letters = 0;

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        person_t *person = person_new(names[i]);
        if (person == NULL || person->name == NULL) return EXIT_FAILURE;
        letters += strlen(person->name);
        person_free(person);
    }

    char *label = ak_strdup("a label that nobody frees"); /* bug: so it says */
    printf("%zu letters, %s\n", letters, label);
    fflush(stdout);

    /* Four blocks from two lines. With tracking off the count is unknown and the report says how to turn it on. */
    size_t live = ak_leaks_print();
    if (ak_track_get() == AK_TRACK_OFF) return EXIT_SUCCESS;
    return live == 4 ? EXIT_SUCCESS : EXIT_FAILURE;
}
