/* unloading LIBRARY local|global ALLOCATE FREE: a library with an allocator is opened, used by threads and closed, while
   they run on, end, and the process forks. Prints "unloaded" if all of that went well.
   unloading count LIBRARY...: opens them all, and prints how many that were. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHECK(what) do { if (!(what)) { printf("line %d: %s\n", __LINE__, #what); return 1; } } while (0)

static void *(*allocate)(size_t);
static void (*give_back)(void *);
static atomic_int begun, closed;

static int use(unsigned rounds) {
    for (unsigned i = 0; i < rounds; i++) {
        size_t size = (size_t)i * 37 % 3000 + 1;
        char *block = allocate(size);
        if (!block) return 1;
        memset(block, 7, size);
        give_back(block);
    }
    return 0;
}

/* One in three ends before the library is closed, one runs on without using it, one uses it until its end. */
static void *thread(void *number) {
    int kind = (int)(long)number % 3;
    if (use(1000)) return "no memory";
    atomic_fetch_add(&begun, 1);
    if (kind == 0) return NULL;
    while (!atomic_load(&closed)) sched_yield();
    for (int i = 0; i < 300; i++) {
        usleep(20);
        sched_yield();
        if (kind == 2 && use(10)) return "no memory";
    }
    return NULL;
}

/* The kernel looks at a thread's last sequence when it delivers a signal. */
static void tick(int signal) { (void)signal; }

static int is_mapped(const char *path) {
    char line[4096];
    int found = 0;
    FILE *maps = fopen("/proc/self/maps", "r");
    while (maps && fgets(line, sizeof line, maps)) found |= strstr(line, path) != NULL;
    if (maps) fclose(maps);
    return found;
}

static int forks(void) {
    for (int i = 0; i < 20; i++) {
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            alarm(20);
            _exit(use(500));
        }
        int status;
        CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    return 0;
}

static int once(char **argv) {
    enum { THREADS = 6 };
    pthread_t threads[THREADS];
    void *result;
    void *library = dlopen(argv[1], RTLD_NOW | (strcmp(argv[2], "global") == 0 ? RTLD_GLOBAL : RTLD_LOCAL));
    if (!library) puts(dlerror());
    CHECK(library);
    allocate = (void *(*)(size_t))dlsym(library, argv[3]);
    give_back = (void (*)(void *))dlsym(library, argv[4]);
    CHECK(allocate && give_back && use(1000) == 0);
    atomic_store(&begun, 0);
    atomic_store(&closed, 0);
    for (long i = 0; i < THREADS; i++) CHECK(pthread_create(&threads[i], NULL, thread, (void *)i) == 0);
    while (atomic_load(&begun) < THREADS) sched_yield();
    char *held = allocate(100);
    strcpy(held, "held");
    CHECK(dlclose(library) == 0);
    atomic_store(&closed, 1);
    for (int i = 0; i < 300; i++) sched_yield();
    CHECK(is_mapped(argv[1]));
    CHECK(strcmp(held, "held") == 0);
    give_back(held);
    for (int i = 0; i < THREADS; i++) CHECK(pthread_join(threads[i], &result) == 0 && result == NULL);
    return forks();
}

int main(int argc, char **argv) {
    if (argc > 2 && strcmp(argv[1], "count") == 0) {
        int opened = 0;
        while (opened + 2 < argc && dlopen(argv[opened + 2], RTLD_NOW | RTLD_LOCAL)) opened++;
        printf("%d\n", opened);
        return 0;
    }
    if (argc != 5) return 2;
    alarm(120);
    setvbuf(stdout, NULL, _IONBF, 0);
    struct sigaction action = {.sa_handler = tick, .sa_flags = SA_RESTART};
    CHECK(sigaction(SIGPROF, &action, NULL) == 0);
    struct itimerval period = {{0, 1000}, {0, 1000}};
    CHECK(setitimer(ITIMER_PROF, &period, NULL) == 0);
    for (int i = 0; i < 5; i++) CHECK(once(argv) == 0);
    puts("unloaded");
    return 0;
}
