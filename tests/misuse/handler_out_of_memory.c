/* Asks for more than there is, in each way; the handler is told, and it is no fault: no policy acts on it. */
#include "misuse.h"

static int calls;
static size_t wanted;
static uint32_t line;

static void handler(const ak_fault_t *fault, void *arg) {
    (void)arg;
    REQUIRE(fault->struct_size == sizeof *fault && fault->kind == AK_FAULT_OUT_OF_MEMORY);
    REQUIRE(fault->size == wanted && (fault->owner == NULL ? is_line(&fault->now, line) : line == 0));
    errno = 0;
    calls++;
    /* This fails too, and is not told. */
    REQUIRE(ak_alloc((size_t)hidden((void *)(PTRDIFF_MAX - 100))) == NULL && errno == ENOMEM);
}

/* On the call's own line. */
#define FAILS(call, size, count)                                                                                       \
    do {                                                                                                               \
        wanted = (size), line = __LINE__, errno = 0;                                                                   \
        if ((call) != NULL || errno != ENOMEM || calls != (count)) return 10 + (count);                                \
    } while (0)

int main(void) {
    size_t much = (size_t)hidden((void *)(PTRDIFF_MAX - 100)), most = (size_t)hidden((void *)SIZE_MAX);
    void *block = ak_alloc(10);
    if (!ak_error_handler_set(handler, NULL)) return 2;
    FAILS(ak_alloc(much), much, 1);
    FAILS(ak_alloc(most), most, 2);
    FAILS(ak_alloc_aligned(much, 64), much, 3);
    FAILS(ak_realloc(block, much), much, 4);
    FAILS(ak_calloc(1, much), much, 5);
    FAILS(ak_calloc(most, 2), most, 6);
    FAILS(ak_reallocarray(block, most, 3), most, 7);
    ak_arena_t *arena = ak_arena_new(NULL);
    line = 0;
    wanted = most;
    errno = 0;
    if (ak_arena_alloc(arena, most) != NULL || errno != ENOMEM || calls != 8) return 20;
    wanted = 5000;
    ak_arena_opts_t opts = {.struct_size = sizeof opts, .name = "small", .limit = 4000};
    ak_arena_t *small = ak_arena_new(&opts);
    errno = 0;
    if (ak_arena_alloc(small, 5000) != NULL || errno != ENOMEM || calls != 9) return 21;
    if (!ak_error_handler_set(NULL, NULL) || ak_alloc(most) != NULL || calls != 9) return 22;
    ak_arena_destroy(small);
    ak_arena_destroy(arena);
    ak_free(block);
    return finish(0);
}

/* STATUS: 0 */
