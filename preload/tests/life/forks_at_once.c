// Signal handlers of many threads fork at the same time, each in the middle of something: the children use their heap.
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { THREADS = 16, ROUNDS = 2, HELD = 64 };

static atomic_int stop, forks;

static void on_signal(int signal) {
    pid_t child = fork();
    if (child == 0) {
        alarm(20);
        free(memset(malloc(100), 1, 100));
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
    (void)signal;
}

static void *churn(void *seed_at) {
    unsigned seed = *(unsigned *)seed_at;
    void *held[HELD] = {0};
    while (!stop) {
        seed = seed * 1664525 + 1013904223;
        unsigned place = (seed >> 8) % HELD;
        free(held[place]);
        held[place] = memset(malloc(16 + (seed >> 16) % 30000), 1, 1);
    }
    for (int i = 0; i < HELD; i++) free(held[i]);
    return NULL;
}

int main(void) {
    alarm(60);
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_signal;
    sigaction(SIGUSR1, &action, NULL);
    pthread_t threads[THREADS];
    unsigned seeds[THREADS];
    for (int i = 0; i < THREADS; i++) {
        seeds[i] = i;
        pthread_create(&threads[i], NULL, churn, &seeds[i]);
    }
    for (int round = 1; round <= ROUNDS; round++) {
        for (int i = 0; i < THREADS; i++) pthread_kill(threads[i], SIGUSR1);
        while (forks < round * THREADS) usleep(1000);
    }
    stop = 1;
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    printf("%d forks\n", forks);
    return 0;
}
