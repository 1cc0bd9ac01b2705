// Handlers that end the process while its thread allocates. Forty children, of which some are interrupted on a slow path:
// each must end with 0 within 30 s.
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

static void end(int signal) {
    (void)signal;
    exit(0);
}

static void allocate(long turn) {
    struct itimerval once = {{0, 0}, {0, 1000 + turn * 37 % 900}};
    signal(SIGALRM, end);
    setitimer(ITIMER_REAL, &once, NULL);
    for (;;) {
        void *volatile blocks[60];
        for (int i = 0; i < 60; i++) blocks[i] = malloc(i % 2 ? 100000 : 20000);
        for (int i = 0; i < 60; i++) free(blocks[i]);
    }
}

int main(int count, char **arguments) {
    if (count > 1) allocate(atol(arguments[1]));
    for (int turn = 0; turn < 40; turn++) {
        char text[20];
        snprintf(text, sizeof text, "%d", turn);
        pid_t child = fork();
        if (child == 0) {
            execl("/proc/self/exe", arguments[0], text, (char *)NULL);
            _exit(9);
        }
        int status = -1;
        pid_t ended = 0;
        for (int wait = 0; ended == 0 && wait < 30000; wait++) {
            ended = waitpid(child, &status, WNOHANG);
            if (ended == 0) usleep(1000);
        }
        if (ended != child) kill(child, SIGKILL);
        if (ended != child || status != 0) return printf("child %d: status %x\n", turn, (unsigned)status), 3;
    }
    puts("each ended as it was told");
    return 0;
}
