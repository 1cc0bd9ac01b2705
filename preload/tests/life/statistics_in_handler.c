// A handler asks for statistics, which none may, until it has interrupted its own thread in what it asks for: 30 s at most.
#define _GNU_SOURCE
#include <malloc.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
#include "watch.h"

static volatile size_t sum;

static void on_timer(int signal) {
    (void)signal;
    sum += mallinfo2().uordblks;
}

int main(void) {
    signal(SIGALRM, on_timer);
    watch(20);
    struct itimerval often = {{0, 200}, {0, 200}};
    setitimer(ITIMER_REAL, &often, NULL);
    for (time_t end = time(NULL) + 30; time(NULL) < end; watch_count++)
        for (size_t i = 1; i < 200; i++) {
            void *volatile block = malloc(i * 1000);
            if (!block) return 6;
            free(block);
        }
    puts("never in the middle");
    return 0;
}
