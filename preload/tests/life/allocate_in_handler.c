// Handlers allocate, free and resize, and leave blocks behind that the threads free, wherever they interrupt an operation
// of their own thread's; every block carries its contents. Arguments: seconds, microseconds from one signal of a thread
// to the next, and of how many blocks one is large.
#define _GNU_SOURCE
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include "watch.h"

#ifndef sigev_notify_thread_id /* glibc has no name for it */
#define sigev_notify_thread_id _sigev_un._tid
#endif

enum { THREADS = 3, HELD = 2000, LEFT = 512 };
static atomic_int stop;
static long interval = 150;
static unsigned large_one_in = 40;
static atomic_long in_handlers;

struct block { size_t size; unsigned char bytes[]; };

static struct block *make(size_t size, unsigned seed) {
    if (size < sizeof(struct block) + 2) size = sizeof(struct block) + 2;
    struct block *block = malloc(size);
    if (!block) _exit(6);
    block->size = size;
    memset(block->bytes, (unsigned char)(seed ^ size), size - sizeof *block);
    block->bytes[0] = (unsigned char)size;
    return block;
}

static void check(struct block *block) {
    size_t length = block->size - sizeof *block;
    if (block->bytes[0] != (unsigned char)block->size) abort();
    for (size_t i = 2; i < length; i += 1 + length / 16) if (block->bytes[i] != block->bytes[1]) abort();
}

// What a thread's handlers left for it.
static __thread struct block *_Atomic left[LEFT];
static __thread unsigned handler_seed;
static __thread int ready;
// What the thread itself has done, and had done when it was interrupted before.
static __thread volatile long steps;
static __thread long steps_before;

static size_t any_size(unsigned seed) {
    if ((seed >> 8) % large_one_in == 0) return 40000 + seed % 300000;
    switch ((seed >> 13) % 40) {
        case 1: case 2: return 2000 + seed % 30000;
        default: return seed % 600;
    }
}

static void on_timer(int signal) {
    (void)signal;
    // Where signals come faster than they are handled, the thread must go on between them all the same.
    if (!ready || steps == steps_before) return;
    steps_before = steps;
    for (int i = 0; i < 3; i++) {
        handler_seed = handler_seed * 1664525 + 1013904223;
        struct block *_Atomic *place = &left[(handler_seed >> 12) % LEFT];
        struct block *old = atomic_exchange(place, make(any_size(handler_seed), handler_seed));
        if (old) {
            check(old);
            if (handler_seed & 1) {
                size_t size = sizeof *old + 8 + old->size / 2 + (handler_seed >> 24);
                unsigned char fill = old->bytes[1];
                size_t before = old->size;
                old = realloc(old, size);
                if (!old) _exit(6);
                if (before < size) memset((char *)old + before, fill, size - before);
                old->size = size;
                old->bytes[0] = (unsigned char)size;
                check(old);
            }
            free(old);
        }
    }
    in_handlers++;
}

static void *work(void *number) {
    handler_seed = (unsigned)(size_t)number * 77 + 1;
    struct sigevent event;
    memset(&event, 0, sizeof event);
    event.sigev_notify = SIGEV_THREAD_ID;
    event.sigev_signo = SIGUSR1;
    event.sigev_notify_thread_id = (int)syscall(SYS_gettid);
    timer_t timer;
    if (timer_create(CLOCK_MONOTONIC, &event, &timer)) _exit(7);
    struct itimerspec often = {{0, interval * 1000}, {0, interval * 1000}};
    struct block **held = calloc(HELD, sizeof *held);
    unsigned seed = (unsigned)(size_t)number + 9;
    ready = 1;
    timer_settime(timer, 0, &often, NULL);
    while (!stop) {
        for (int i = 0; i < 500; i++) {
            seed = seed * 1664525 + 1013904223;
            unsigned place = (seed >> 12) % HELD;
            if (held[place]) check(held[place]);
            free(held[place]);
            held[place] = make(any_size(seed), seed);
            struct block *theirs = atomic_exchange(&left[(seed >> 5) % LEFT], NULL);
            if (theirs) check(theirs);
            free(theirs);
            steps++;
            watch_count++;
        }
        if (seed % 7 == 0) {
            cpu_set_t one;
            CPU_ZERO(&one);
            CPU_SET(seed / 7 % (unsigned)sysconf(_SC_NPROCESSORS_ONLN), &one);
            sched_setaffinity(0, sizeof one, &one);
        }
    }
    timer_delete(timer);
    ready = 0;
    for (int i = 0; i < LEFT; i++) { struct block *b = left[i]; if (b) check(b); free(b); }
    for (int i = 0; i < HELD; i++) { if (held[i]) check(held[i]); free(held[i]); }
    free(held);
    return NULL;
}

int main(int count, char **arguments) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_timer;
    action.sa_flags = SA_RESTART;
    sigaction(SIGUSR1, &action, NULL);
    if (count > 2) interval = atol(arguments[2]);
    if (count > 3) large_one_in = (unsigned)atoi(arguments[3]);
    watch(30);
    pthread_t threads[THREADS];
    for (size_t i = 0; i < THREADS; i++) pthread_create(&threads[i], NULL, work, (void *)i);
    sleep(count > 1 ? atoi(arguments[1]) : 2);
    stop = 1;
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    if (in_handlers < 100) return 5;
    puts("every block was whole");
    return 0;
}
