/* Reports before the end: what the first argument says, with statistics to the file of the second.
 *
 *   signal    asks for three by SIGUSR2 and waits for each, then in a child of fork, and ends
 *   every     waits until two have come, and ends
 *   alone     ends its first thread, which leaves the process to those that perseq started
 *   own       has a handler of its own, which perseq leaves alone
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const char *file;
static volatile sig_atomic_t came;

static void count(int signal) {
    (void)signal;
    came++;
}

static int lines(void) {
    FILE *stream = fopen(file, "r");
    int found = 0, letter;
    if (!stream)
        return 0;
    while ((letter = getc(stream)) != EOF)
        found += letter == '\n';
    fclose(stream);
    return found;
}

static void await(int wanted) {
    struct timespec moment = {.tv_nsec = 10 * 1000 * 1000};
    for (int look = 0; lines() < wanted; look++) {
        if (look == 2000) {
            fprintf(stderr, "%d lines, not %d\n", lines(), wanted);
            exit(1);
        }
        nanosleep(&moment, NULL);
    }
}

/* Comes to slow paths. */
static void allocate(void) {
    static void *volatile held[1000];
    for (int i = 0; i < 1000; i++)
        held[i] = malloc(1000 + i);
    for (int i = 0; i < 1000; i++)
        free(held[i]);
}

int main(int argc, char **argv) {
    if (argc != 3)
        return 2;
    file = argv[2];
    allocate();
    if (!strcmp(argv[1], "signal")) {
        for (int asked = 1; asked <= 3; asked++) {
            raise(SIGUSR2);
            await(asked);
        }
        pid_t child = fork();
        if (!child) {
            allocate();
            raise(SIGUSR2);
            await(4);
            exit(0); /* with a line */
        }
        int status;
        if (waitpid(child, &status, 0) != child || status)
            return 1;
    } else if (!strcmp(argv[1], "every")) {
        await(2);
    } else if (!strcmp(argv[1], "alone")) {
        pthread_exit(NULL);
    } else {
        signal(SIGUSR2, count);
        for (int i = 0; i < 3; i++)
            raise(SIGUSR2);
        allocate();
        return came != 3;
    }
    return 0;
}
