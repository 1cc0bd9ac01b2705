// A cancellation is pending while threads allocate, free and resize, first on a CPU where nobody was before: none of the
// calls is a point where a thread is cancelled.
#define _GNU_SOURCE
#include <malloc.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static atomic_int stage;

static void run_on(int cpu) {
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    sched_setaffinity(0, sizeof one, &one); // fails on a machine with fewer CPUs, which is fine
}

static void use_heap(void) {
    enum { COUNT = 3000 };
    static __thread void *blocks[COUNT];
    for (int i = 0; i < COUNT; i++) memset(blocks[i] = malloc(1 + i * 11), i, 1);
    for (int i = 0; i < COUNT; i += 2) blocks[i] = realloc(blocks[i], 1 + i * 23);
    for (int i = 0; i < COUNT; i++) free(blocks[i]);
    char *block = calloc(1, 100000);
    for (int i = 1; i < 9; i++) {
        block = realloc(block, 100000 << i);
        block[(100000 << i) - 1] = 1;
    }
    free(block);
    free(aligned_alloc(1 << 16, 1 << 18));
    malloc_trim(0);
}

static void *victim(void *result) {
    run_on(1);
    stage = 1;
    while (stage != 2) {}
    use_heap();
    stage = 3;
    pthread_testcancel();
    return result;
}

static void *other(void *result) {
    run_on(1);
    use_heap();
    return result;
}

int main(void) {
    alarm(60);
    run_on(0);
    free(malloc(100));
    pthread_t thread;
    void *result;
    for (int round = 0; round < 3; round++) {
        stage = 0;
        pthread_create(&thread, NULL, victim, NULL);
        while (stage != 1) usleep(100);
        pthread_cancel(thread);
        stage = 2;
        pthread_join(thread, &result);
        if (stage != 3 || result != PTHREAD_CANCELED) {
            printf("cancelled at stage %d\n", stage);
            return 3;
        }
        pthread_create(&thread, NULL, other, NULL);
        pthread_join(thread, &result);
    }
    puts("cancelled where it may be");
    return 0;
}
