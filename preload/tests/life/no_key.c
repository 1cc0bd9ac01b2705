// Every key of thread-specific data is taken before the first allocation. Threads that allocate come and go. Argument: the
// mode that must run.
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "resident.h"

static void *allocate(void *nothing) {
    for (size_t size = 1; size < 2000; size *= 2) {
        void *volatile block = malloc(size);
        free(block);
    }
    return nothing;
}

static void come_and_go(int threads) {
    for (int i = 0; i < threads; i++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, allocate, NULL)) exit(5);
        pthread_join(thread, NULL);
    }
}

int main(int count, char **arguments) {
    if (count != 2) return 2;
    pthread_key_t key;
    while (pthread_key_create(&key, free) == 0) {}
    void *volatile block = malloc(1);
    free(block);
    const char *(*mode)(void) = (const char *(*)(void))dlsym(RTLD_DEFAULT, "perseq_mode");
    if (!mode || strcmp(mode(), arguments[1])) return printf("mode %s\n", mode ? mode() : "unknown"), 3;
    come_and_go(200);
    long before = resident();
    come_and_go(1500);
    long more = resident() - before;
    printf("%ld KiB for 1500 threads\n", more);
    if (more > 4096) return 6;
    puts("nothing is left of them");
    return 0;
}
