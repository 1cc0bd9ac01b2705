// A thread that ends the process with a message if the count does not go on. It allocates nothing.
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static atomic_long watch_count;
static atomic_int watch_over;

static void *watch_run(void *seconds) {
    long last = -1, still = 0;
    while (!watch_over) {
        usleep(100000);
        long now = watch_count;
        still = now == last ? still + 1 : 0;
        last = now;
        if (still >= 10 * (long)seconds) {
            static const char stuck[] = "stuck: nothing goes on\n";
            if (write(2, stuck, sizeof stuck - 1)) {}
            _exit(9);
        }
    }
    return NULL;
}

// The process ends with 9 if `watch_count` stays the same for so many seconds.
static void watch(long seconds) {
    pthread_t thread;
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_create(&thread, NULL, watch_run, (void *)seconds);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_detach(thread);
}
