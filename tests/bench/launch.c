/*
 * Runs a program and writes down what it took: launch SECONDS LIBRARY FILE PROGRAM ARG...
 *
 * LIBRARY is preloaded into the program only (`-`: none). After SECONDS everything in this process group is killed. FILE
 * gets one line: wait status, user and system time in microseconds, peak resident KiB, wall clock in nanoseconds.
 *
 * A process of its own, because the kernel counts into a program's peak what its parent had resident when it was started:
 * this one is small.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static long long now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

int main(int argc, char **argv)
{
    if (argc < 5) return 2;
    sigset_t children, before;
    sigemptyset(&children);
    sigaddset(&children, SIGCHLD);
    sigprocmask(SIG_BLOCK, &children, &before);
    long long from = now();
    pid_t child = fork();
    if (child == 0) {
        sigprocmask(SIG_SETMASK, &before, NULL);
        if (strcmp(argv[2], "-") != 0) setenv("LD_PRELOAD", argv[2], 1);
        execv(argv[4], argv + 4);
        perror(argv[4]);
        _exit(127);
    }
    if (child < 0) return 3;
    struct timespec patience = {.tv_sec = atol(argv[1]), .tv_nsec = 0};
    while (sigtimedwait(&children, NULL, &patience) < 0) {
        if (errno == EAGAIN) kill(0, SIGKILL);
    }
    int status;
    struct rusage usage;
    while (wait4(child, &status, 0, &usage) < 0) {
        if (errno != EINTR) return 4;
    }
    long long wall = now() - from;
    FILE *file = fopen(argv[3], "w");
    if (file == NULL) return 5;
    fprintf(file, "%d %lld %lld %ld %lld\n", status, usage.ru_utime.tv_sec * 1000000LL + usage.ru_utime.tv_usec,
            usage.ru_stime.tv_sec * 1000000LL + usage.ru_stime.tv_usec, usage.ru_maxrss, wall);
    return fclose(file) == 0 ? 0 : 6;
}
