// A burst of memory, touched and freed, and then either nothing (`sleep`) or small traffic that goes on (`traffic`), until
// at most so many MiB are resident, or so many seconds are over. Arguments: which, MiB of the burst, MiB, seconds.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "resident.h"

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

int main(int count, char **arguments) {
    if (count != 5) return 2;
    int sleeps = arguments[1][0] == 's';
    long burst = atol(arguments[2]), most = atol(arguments[3]), seconds = atol(arguments[4]);
    enum { SIZE = 1000 };
    long blocks = (burst << 20) / SIZE;
    char **held = malloc((size_t)blocks * sizeof *held);
    for (long i = 0; i < blocks; i++) memset(held[i] = malloc(SIZE), 1, SIZE);
    long at_burst = resident() >> 10;
    for (long i = 0; i < blocks; i++) free(held[i]);
    free(held);
    double start = now();
    long left = resident() >> 10;
    while (left > most && now() < start + (double)seconds) {
        if (sleeps) usleep(50000);
        else for (int i = 0; i < 1000000; i++) {
            void *volatile block = malloc(16 + i % 64);
            free(block);
        }
        left = resident() >> 10;
    }
    printf("%ld MiB at the burst, %ld after %.1f s\n", at_burst, left, now() - start);
    if (left > most) return 3;
    puts("gave it back");
    return 0;
}
