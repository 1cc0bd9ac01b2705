/* Holds COUNT blocks of SIZE bytes, less every third, which it frees; says in a line what libperseq itself counts; and
 * waits. Each byte of input is a step: `m` holds as many again (once), `b` allocates and frees in threads until the next
 * byte. After each step it says a line and waits; it ends with its input. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <unistd.h>

static int (*write_stats)(int, int);
static volatile int busy;

static void *churn(void *seed) {
    void *held[512] = {0};
    uint64_t random = (uintptr_t)seed;
    while (busy) {
        random = random * 6364136223846793005u + 1;
        unsigned place = random >> 33 & 511;
        free(held[place]);
        held[place] = malloc((random >> 42 & 4095) + 1);
        if ((random >> 56) == 0) { /* now and then a large one */
            free(held[place]);
            held[place] = malloc(100000);
        }
    }
    for (int place = 0; place < 512; place++)
        free(held[place]);
    return NULL;
}

static void hold(void **held, size_t count, size_t size) {
    for (size_t i = 0; i < count; i++)
        if (!(held[i] = malloc(size)))
            abort();
    for (size_t i = 0; i < count; i += 3)
        free(held[i]);
}

int main(int argc, char **argv) {
    size_t count = argc > 1 ? strtoull(argv[1], NULL, 10) : 0, size = argc > 2 ? strtoull(argv[2], NULL, 10) : 0;
    prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0); /* where Yama lets nobody else read it */
    write_stats = (int (*)(int, int))dlsym(RTLD_DEFAULT, "perseq_write_stats");
    void **held = malloc(2 * count * sizeof *held);
    char asked = 0;
    hold(held, count, size);
    do {
        pthread_t threads[3];
        if (asked == 'm')
            hold(held + count, count, size);
        if (asked == 'b') {
            busy = 1;
            for (uintptr_t i = 0; i < 3; i++)
                if (pthread_create(&threads[i], NULL, churn, (void *)(i + 1)))
                    abort();
        }
        /* Nothing is allocated from here to the next byte. */
        if (!write_stats) {
            if (write(1, "{}\n", 3) != 3)
                return 1;
        } else if (write_stats(1, 1))
            return 1;
        if (busy) {
            struct pollfd input = {.fd = 0, .events = POLLIN};
            poll(&input, 1, -1);
            busy = 0;
            for (int i = 0; i < 3; i++)
                pthread_join(threads[i], NULL);
        }
    } while (read(0, &asked, 1) == 1);
    return 0;
}
