/*
 * Counts the user-mode instructions of a stretch of a program by single-stepping it: exact, repeatable, and not fooled by
 * what else the machine does. Usage: count PROGRAM ARG...
 *
 * The program marks the begin and the end of the stretch by sending itself SIGUSR1 with a raw system call, so that the
 * marks cost the same in every program. Prints the number; exits with 1 when the program ends before its second mark.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    if (argc < 2) {
        fprintf(stderr, "usage: count PROGRAM ARG...\n");
        return 2;
    }
    pid_t child = fork();
    if (child == 0) {
        ptrace(PTRACE_TRACEME, 0, NULL, NULL);
        execv(argv[1], argv + 1);
        perror(argv[1]);
        _exit(127);
    }
    long steps = 0;
    int counting = 0;
    for (;;) {
        int status;
        if (waitpid(child, &status, 0) < 0 || WIFEXITED(status) || WIFSIGNALED(status)) {
            fprintf(stderr, "count: %s ended before its second mark\n", argv[1]);
            return 1;
        }
        int signal = WSTOPSIG(status);
        if (signal == SIGUSR1) {
            if (counting) {
                printf("%ld\n", steps);
                kill(child, SIGKILL);
                return 0;
            }
            counting = 1;
            signal = 0;
        } else if (signal == SIGTRAP) {
            steps += counting;
            signal = 0;
        }
        if (ptrace(counting ? PTRACE_SINGLESTEP : PTRACE_CONT, child, NULL, (void *)(long)signal) != 0) {
            perror("ptrace");
            return 1;
        }
    }
}
