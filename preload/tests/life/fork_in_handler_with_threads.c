// As fork_in_handler.c, with other threads that allocate: the child ends in the handler, after it used its heap.
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include "watch.h"

static atomic_long forks;
static atomic_int stop;
static __thread int takes_signals;
static __thread volatile sig_atomic_t armed;

static void on_timer(int signal) {
    if (!takes_signals || stop) return;
    pid_t child = fork();
    if (child == 0) {
        alarm(20);
        void *blocks[200];
        for (int i = 0; i < 200; i++) memset(blocks[i] = malloc(1 + i * 500), i, 1);
        for (int i = 0; i < 200; i++) free(blocks[i]);
        _exit(0);
    }
    int status = 1;
    waitpid(child, &status, 0);
    if (status != 0) {
        static const char bad[] = "a child did not end well\n";
        if (write(2, bad, sizeof bad - 1)) {}
        _exit(3);
    }
    forks++;
    watch_count++;
    armed = 0;
    (void)signal;
}

static void *churn(void *takes) {
    enum { HELD = 3000 };
    takes_signals = takes != NULL;
    timer_t timer;
    if (takes) {
        struct sigevent event;
        memset(&event, 0, sizeof event);
        event.sigev_notify = SIGEV_SIGNAL;
        event.sigev_signo = SIGUSR1;
        timer_create(CLOCK_MONOTONIC, &event, &timer);
        sigset_t ours;
        sigemptyset(&ours);
        sigaddset(&ours, SIGUSR1);
        pthread_sigmask(SIG_UNBLOCK, &ours, NULL);
    }
    unsigned char **held = calloc(HELD, sizeof *held);
    unsigned seed = (unsigned)(size_t)held;
    while (!stop) {
        for (int i = 0; i < HELD; i++) {
            seed = seed * 1664525 + 1013904223;
            unsigned place = (seed >> 8) % HELD;
            if (held[place] && held[place][0] != (unsigned char)place) abort();
            free(held[place]);
            held[place] = malloc(1 + (seed >> 20) * ((seed >> 16) % 16 == 0 ? 40 : 1));
            held[place][0] = (unsigned char)place;
            if (takes && !armed) {
                // One signal at a time: the thread must get on between two.
                struct itimerspec once = {{0, 0}, {0, 20000 + (seed >> 10) % 1000 * 1000}};
                armed = 1;
                timer_settime(timer, 0, &once, NULL);
            }
        }
    }
    return NULL;
}

int main(void) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_timer;
    action.sa_flags = SA_RESTART;
    sigaction(SIGUSR1, &action, NULL);
    watch(30);
    // Before there is a timer: one thread alone is to take its signals.
    sigset_t ours;
    sigemptyset(&ours);
    sigaddset(&ours, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &ours, NULL);
    pthread_t threads[3];
    for (int i = 0; i < 3; i++) pthread_create(&threads[i], NULL, churn, i == 0 ? &stop : NULL);
    while (forks < 60) usleep(10000);
    stop = 1;
    for (int i = 0; i < 3; i++) pthread_join(threads[i], NULL);
    puts("60 forks");
    return 0;
}
