// A crash reporter: the handler of SIGABRT allocates much and forks, after a double free was detected.
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { BLOCKS = 20000 };
static void *freed[BLOCKS];

static void report(int signal) {
    (void)signal;
    alarm(20);
    static void *blocks[BLOCKS];
    for (int i = 0; i < BLOCKS; i++) memset(blocks[i] = malloc(1 + i % 3000), 1, 1);
    pid_t child = fork();
    if (child == 0) {
        for (int i = 0; i < BLOCKS; i++) free(blocks[i]);
        for (int i = 0; i < BLOCKS; i++) blocks[i] = malloc(1 + i % 900);
        _exit(7);
    }
    int status = 0;
    waitpid(child, &status, 0);
    for (int i = 0; i < BLOCKS; i++) free(blocks[i]);
    _exit(WIFEXITED(status) && WEXITSTATUS(status) == 7 ? 42 : 3);
}

int main(void) {
    signal(SIGABRT, report);
    for (int i = 0; i < BLOCKS; i++) freed[i] = malloc(64);
    for (int i = 0; i < BLOCKS; i++) free(freed[i]);
    for (int i = 0; i < BLOCKS; i++) free(freed[i]);
    for (int i = 0; i < BLOCKS; i++) freed[i] = malloc(64);
    puts("nothing was noticed");
    return 0;
}
