/* Reports in bad places. Each program is linked with the guarded library and run under each policy; at its end it says what
 * is printed, as the programs of tests/guard do (EXPECT lines: not under quiet; abort adds its line and SIGABRT). Also:
 *   LEAVES: the handler does not come back, so the program ends by itself, with status 0, under abort too
 *   SAYS line: what the program itself prints, last, under report and quiet and where it LEAVES
 *   ENV NAME=VALUE: its environment */
#ifndef PLACES_H
#define PLACES_H
#define _GNU_SOURCE
#include <alloc.h>
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

static inline void *hidden(const volatile void *p) {
    void *volatile q = (void *)(uintptr_t)p;
    return q;
}

#define REQUIRE(condition)                                                                                             \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            static const char text[] = "not so: " #condition "\n";                                                     \
            if (write(2, text, sizeof text - 1) < 0) _exit(8);                                                         \
            _exit(9);                                                                                                  \
        }                                                                                                              \
    } while (0)

/* What hangs ends with SIGALRM. */
__attribute__((constructor)) static void patience(void) { alarm(60); }

/* The program ends as its child did. */
static inline int end_as(pid_t child) {
    int status;
    REQUIRE(waitpid(child, &status, 0) == child);
    if (WIFSIGNALED(status)) {
        signal(WTERMSIG(status), SIG_DFL);
        kill(getpid(), WTERMSIG(status));
    }
    return WEXITSTATUS(status);
}

/* A number of signals, 200 us of the process's time apart. */
static inline void interrupt_with(void (*handler)(int)) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = handler;
    action.sa_flags = SA_RESTART | SA_ONSTACK;
    REQUIRE(sigaction(SIGPROF, &action, NULL) == 0);
    struct itimerval every = {{0, 200}, {0, 200}};
    REQUIRE(setitimer(ITIMER_PROF, &every, NULL) == 0);
}

#endif
