/* What a heap profile must find: blocks of known sizes, each of which one function alone allocates. The first argument:
 *
 *   plant    allocates in every way that C has, and says "SIZE ALLOCATED LIVE" of each size
 *   wait     as plant, and then says "pid PID" and waits for the end of its input
 *   fork     as plant, and so does a child of fork afterwards, with other sizes
 *   handler  ends in a handler that interrupts allocations
 *   fates    frees blocks on this CPU and another, by this thread and another, and says "fate SIZE ALL ON_ANOTHER_CPU
 *            BY_ANOTHER_THREAD" of each size, or "one CPU"
 *   places   keeps blocks that threads allocated on one CPU and another, and says "place CPU THREAD SIZE BLOCKS" of each, or
 *            "one CPU"
 *   ask      writes the profile to the file of the second argument, in a handler that interrupts allocations
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHECK(what)                                                                                                    \
    do {                                                                                                               \
        if (!(what)) {                                                                                                 \
            fprintf(stderr, "line %d: %s\n", __LINE__, #what);                                                         \
            _exit(1);                                                                                                  \
        }                                                                                                              \
    } while (0)

enum { MANY = 20000, SOME = 6000, LARGE = 1000, THREADS = 3, EACH = 3000 };

static size_t usable(void *block) {
    static size_t (*ask)(void *);
    if (!ask)
        ask = (size_t(*)(void *))dlsym(RTLD_DEFAULT, "malloc_usable_size");
    return ask(block);
}

static void said(size_t size, int allocated, int live) {
    printf("%zu %d %d\n", size, allocated, live);
}

/* A block that is as it has to be, written to its end. */
static void *good(void *block, size_t size, size_t align) {
    CHECK(block && (uintptr_t)block % align == 0 && usable(block) >= size);
    CHECK(size > 32768 || usable(block) == size);
    memset(block, 0x5a, size);
    return block;
}

__attribute__((noinline)) static void *by_malloc(size_t size) {
    return good(malloc(size), size, 16);
}

__attribute__((noinline)) static void *by_calloc(size_t size) {
    char *block = calloc(size / 8, 8);
    CHECK(block);
    for (size_t i = 0; i < size; i++)
        CHECK(block[i] == 0);
    return good(block, size, 16);
}

__attribute__((noinline)) static void *by_memalign(size_t align, size_t size) {
    void *block;
    CHECK(posix_memalign(&block, align, size) == 0);
    return good(block, size, align);
}

/* What fits of the contents stays. */
__attribute__((noinline)) static void *by_realloc(void *block, size_t before, size_t size) {
    char *moved = realloc(block, size);
    CHECK(moved);
    for (size_t i = 0; i < (before < size ? before : size); i++)
        CHECK(moved[i] == 0x5a);
    return good(moved, usable(moved), 16);
}

struct blocks {
    void *at[MANY];
    int count;
};

static void *free_them(void *blocks) {
    struct blocks *these = blocks;
    for (int i = 0; i < these->count; i++)
        free(these->at[i]);
    return NULL;
}

static void *allocate_them(void *blocks) {
    struct blocks *these = blocks;
    for (these->count = 0; these->count < EACH; these->count++)
        these->at[these->count] = by_malloc(3072);
    return NULL;
}

static void in_thread(void *(*run)(void *), void *argument) {
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, run, argument) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
}

static void plant(void) {
    static struct blocks blocks, of_threads[THREADS];
    /* A quarter is freed by another thread. */
    for (blocks.count = 0; blocks.count < MANY; blocks.count++)
        blocks.at[blocks.count] = by_malloc(1024);
    blocks.count = MANY / 4;
    in_thread(free_them, &blocks);
    said(1024, MANY, MANY - MANY / 4);
    for (int i = 0; i < SOME; i++)
        CHECK(by_calloc(1280));
    said(1280, SOME, SOME);
    for (int i = 0; i < SOME; i++)
        free(by_memalign(256, 1536));
    said(1536, SOME, 0);
    /* Up, and down to less than half. */
    for (int i = 0; i < SOME; i++)
        CHECK(by_realloc(by_realloc(by_malloc(1792), 1792, 2048), 2048, 700));
    said(1792, SOME, 0);
    said(2048, SOME, 0);
    said(768, SOME, SOME);
    void (*free_sized)(void *, size_t) = (void (*)(void *, size_t))dlsym(RTLD_DEFAULT, "free_sized");
    CHECK(free_sized);
    for (int i = 0; i < SOME; i++)
        free_sized(by_malloc(2560), 2560);
    said(2560, SOME, 0);
    /* By several threads, and freed here but for the last one's. */
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, allocate_them, &of_threads[i]) == 0);
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    for (int i = 0; i < THREADS - 1; i++)
        free_them(&of_threads[i]);
    said(3072, THREADS * EACH, EACH);
    /* Runs of pages, in the hardened mode as well; some of which grow. */
    for (int i = 0; i < LARGE; i++) {
        CHECK(by_calloc(40960));
        free(by_memalign(65536, 73728));
        CHECK(by_realloc(by_malloc(49152), 49152, 57344));
    }
    said(40960, LARGE, LARGE);
    said(73728, LARGE, 0);
    said(49152, LARGE, 0);
    said(57344, LARGE, LARGE);
}

static void on_cpu(int cpu) {
    cpu_set_t only;
    CPU_ZERO(&only);
    CPU_SET(cpu, &only);
    CHECK(sched_setaffinity(0, sizeof only, &only) == 0);
}

static struct blocks fated;
static int free_on;

static void *free_there(void *blocks) {
    on_cpu(free_on);
    return free_them(blocks);
}

/* Allocates blocks on one CPU and frees them on another or the same, by another thread or the same. */
static void fate(size_t size, int from, int to, int by_thread) {
    on_cpu(from);
    for (fated.count = 0; fated.count < SOME; fated.count++)
        fated.at[fated.count] = by_malloc(size);
    free_on = to;
    if (by_thread)
        in_thread(free_there, &fated);
    else
        free_there(&fated);
}

static int of_a_fate(size_t size, int all, int other_cpu, int other_thread) {
    return printf("fate %zu %d %d %d\n", size, all, other_cpu, other_thread);
}

static int here, there;

/* Finds two CPUs, or says that there is one only. */
static int two_cpus(void) {
    cpu_set_t allowed;
    CHECK(sched_getaffinity(0, sizeof allowed, &allowed) == 0);
    int cpus[2], found = 0;
    for (int cpu = 0; cpu < CPU_SETSIZE && found < 2; cpu++)
        if (CPU_ISSET(cpu, &allowed))
            cpus[found++] = cpu;
    if (found < 2)
        printf("one CPU\n");
    here = cpus[0], there = cpus[found - 1];
    return found == 2;
}

/* Allocates so many blocks on a CPU and frees half of them. */
static void place(int cpu, size_t size, int blocks) {
    on_cpu(cpu);
    for (int i = 0; i < blocks; i++) {
        CHECK(by_malloc(size));
        free(by_malloc(size));
    }
    printf("place %d %d %zu %d\n", cpu, (int)syscall(SYS_gettid), size, blocks);
}

static void *place_here(void *unused) {
    place(here, 1024, SOME);
    return unused;
}

static void *place_both(void *unused) {
    place(there, 1024, SOME / 2);
    place(here, 2048, SOME / 2);
    return unused;
}

static void places(void) {
    if (!two_cpus())
        return;
    place(there, 2048, SOME);
    in_thread(place_here, NULL);
    in_thread(place_both, NULL);
}

static void fates(void) {
    if (!two_cpus())
        return;
    fate(1024, here, here, 0);
    of_a_fate(1024, SOME, 0, 0);
    fate(1280, here, there, 0);
    of_a_fate(1280, SOME, SOME, 0);
    fate(1536, there, there, 1);
    of_a_fate(1536, SOME, 0, SOME);
    fate(1792, there, here, 1);
    of_a_fate(1792, SOME, SOME, SOME);
    fate(2048, here, here, 1);
    fate(2048, here, there, 0);
    of_a_fate(2048, 2 * SOME, SOME, SOME);
    /* Large ones, and one that lives as long as it takes. */
    on_cpu(here);
    void *large = by_malloc(262144);
    usleep(20 * 1000);
    on_cpu(there);
    free(large);
    of_a_fate(262144, 1, 1, 0);
    /* What realloc gives up is freed as well. */
    on_cpu(here);
    void *old = by_malloc(327680);
    on_cpu(there);
    CHECK(by_realloc(old, 327680, 1 << 20));
    of_a_fate(327680, 1, 1, 0);
}

static void in_child(void) {
    for (int i = 0; i < SOME; i++)
        CHECK(by_malloc(3584));
    said(3584, SOME, SOME);
}

static const char *file;

static void on_signal(int signal) {
    (void)signal;
    if (!file)
        exit(0);
    int (*write_profile)(int) = (int (*)(int))dlsym(RTLD_DEFAULT, "perseq_write_profile");
    int out = open(file, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    CHECK(write_profile && out >= 0 && write_profile(out) == 0);
    _exit(0);
}

/* Allocates until a handler ends the process, in the middle of one allocation or another. */
static void be_interrupted(void) {
    struct itimerval soon = {.it_value = {.tv_usec = 20 * 1000}};
    usable(by_malloc(16)); /* what it asks the loader for is not for a handler */
    CHECK(signal(SIGPROF, on_signal) != SIG_ERR && setitimer(ITIMER_PROF, &soon, NULL) == 0);
    for (;;) {
        void *block = malloc(1024);
        CHECK(block);
        free(block);
    }
}

int main(int argc, char **argv) {
    if (argc < 2)
        return 2;
    if (strcmp(argv[1], "plant") == 0) {
        plant();
    } else if (strcmp(argv[1], "wait") == 0) {
        plant();
        printf("pid %d\n", getpid());
        fflush(stdout);
        while (getchar() != EOF)
            ;
    } else if (strcmp(argv[1], "fork") == 0) {
        plant();
        fflush(stdout);
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            in_child();
            return 0;
        }
        int status;
        CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
        printf("parent %d child %d\n", getpid(), child);
    } else if (strcmp(argv[1], "fates") == 0) {
        fates();
    } else if (strcmp(argv[1], "places") == 0) {
        places();
    } else if (strcmp(argv[1], "handler") == 0) {
        be_interrupted();
    } else if (strcmp(argv[1], "ask") == 0 && argc == 3) {
        file = argv[2];
        be_interrupted();
    } else {
        return 2;
    }
    return 0;
}
