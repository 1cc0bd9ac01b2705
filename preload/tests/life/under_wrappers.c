// Threads on all CPUs that allocate small, large and growing blocks, pause so that memory goes back, fork, and end.
#define _GNU_SOURCE
#include <malloc.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include "watch.h"

static void *run(void *number) {
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET((size_t)number % (size_t)sysconf(_SC_NPROCESSORS_ONLN), &one);
    sched_setaffinity(0, sizeof one, &one);
    enum { COUNT = 2000 };
    static __thread void *blocks[COUNT];
    for (int round = 0; round < 4; round++) {
        for (int i = 0; i < COUNT; i++) memset(blocks[i] = malloc(1 + i * 37 % 20000), 1, 1);
        for (int i = 0; i < COUNT; i++) free(blocks[i]);
        char *block = malloc(300000);
        for (int i = 1; i < 7; i++) {
            block = realloc(block, 300000 << i);
            block[0] = 1;
        }
        free(block);
        if (round == 2) malloc_trim(0);
        struct timespec pause = {0, 20000000};
        nanosleep(&pause, NULL);
        watch_count++;
    }
    return NULL;
}

int main(void) {
    watch(30);
    pthread_t threads[4];
    for (size_t i = 0; i < 4; i++) pthread_create(&threads[i], NULL, run, (void *)i);
    for (int i = 0; i < 4; i++) {
        pid_t child = fork();
        if (child == 0) {
            alarm(30);
            for (int j = 0; j < 3000; j++) free(malloc(j));
            _exit(0);
        }
        int status = 1;
        waitpid(child, &status, 0);
        if (status) return 3;
        watch_count++;
    }
    for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
    puts("nothing waits for itself");
    return 0;
}
