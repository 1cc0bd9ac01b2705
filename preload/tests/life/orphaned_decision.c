// The first allocation of the process is in the middle of its decision, in a call of `getauxval`, when a handler forks whose
// thread waits for it. Nobody makes the decision in the child. It allocates as any child does, and is told within 60 s
// that it has no mode.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *(*mode)(void);
static volatile int armed, waiter, forked;
static int status;

static void on_signal(int signal) {
    (void)signal;
    pid_t child = fork();
    if (child == 0) {
        alarm(60);
        char *block = malloc(100);
        if (!block) _exit(3);
        memset(block, 1, 100);
        free(block);
        mode();
        _exit(4);
    }
    waitpid(child, &status, 0);
    forked = 1;
}

static void *wait_for_the_decision(void *nothing) {
    waiter = gettid();
    void *volatile block = malloc(100);
    free(block);
    return nothing;
}

static int is_asleep(int thread) {
    char path[64], text[64] = "";
    snprintf(path, sizeof path, "/proc/self/task/%d/stat", thread);
    int file = open(path, O_RDONLY);
    ssize_t got = read(file, text, sizeof text - 1);
    close(file);
    return got > 0 && strstr(text, ") S ");
}

static unsigned long (*real)(unsigned long);

// What the library calls.
unsigned long getauxval(unsigned long key) {
    if (armed) {
        armed = 0;
        pthread_t thread;
        if (pthread_create(&thread, NULL, wait_for_the_decision, NULL)) _exit(5);
        while (!waiter || !is_asleep(waiter)) usleep(1000);
        pthread_kill(thread, SIGUSR1);
        while (!forked) usleep(1000);
    }
    return real(key);
}

int main(void) {
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    sigaction(SIGUSR1, &action, NULL);
    mode = (const char *(*)(void))dlsym(RTLD_DEFAULT, "perseq_mode");
    real = (unsigned long (*)(unsigned long))dlsym(RTLD_NEXT, "getauxval");
    if (!mode || !real) return 6;
    armed = 1;
    void *volatile block = malloc(100);
    free(block);
    printf("%s, child %s %d\n", forked ? "in the middle" : "too late", WIFSIGNALED(status) ? "killed by" : "ended with",
           WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
    return 0;
}
