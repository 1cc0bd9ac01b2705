/* Children that run on their parent's memory and allocate there, while the parent's other threads allocate as well.
   Every block is filled by who has it and looked at before it is freed: one that two have at once is found.

     children WAY SECONDS

   Ends with 0, or says what was lost. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { WORKERS = 2, HELD = 48, WORDS = 8, LARGE = 32 };

static atomic_int stop, lost;
static int first, second; /* two CPUs, or one twice */
static double seconds;
extern char **environ;

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

static void pin(int cpu) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    sched_setaffinity(0, sizeof set, &set);
}

static void find_cpus(void) {
    cpu_set_t set;
    sched_getaffinity(0, sizeof set, &set);
    first = second = -1;
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, &set)) {
            if (first < 0) first = cpu;
            second = cpu;
        }
}

/* Allocates and frees, all blocks marked by `owner`. False if a block is somebody else's as well. */
static int churn(uint64_t owner, int turns) {
    uint64_t *held[HELD] = {0};
    uint64_t state = owner * 0x9e3779b97f4a7c15u + 1;
    int well = 1;
    for (int turn = 0; turn < turns; turn++) {
        state ^= state << 13, state ^= state >> 7, state ^= state << 17;
        uint64_t **place = &held[state % HELD];
        if (*place) {
            for (int word = 0; word < WORDS; word++) well &= (*place)[word] == (owner << 32 | (state % HELD));
            free(*place);
            *place = 0;
        } else {
            *place = malloc(sizeof(uint64_t[WORDS]));
            if (!*place) return 0;
            for (int word = 0; word < WORDS; word++) (*place)[word] = owner << 32 | (state % HELD);
        }
        if (!well) return 0;
    }
    for (int place = 0; place < HELD; place++) free(held[place]);
    return 1;
}

static void *work(void *number) {
    pin(first);
    while (!atomic_load(&stop))
        if (!churn((uintptr_t)number, 1000)) atomic_store(&lost, 1);
    return 0;
}

/* What a child does: it leaves the CPU its parent was on, and allocates. */
static int child(void *turns) {
    pin(second);
    if (!churn(99, (int)(intptr_t)turns)) return 1;
    pin(first); /* and where other threads interrupt it */
    return churn(98, (int)(intptr_t)turns) ? 0 : 1;
}

static int ended_well(pid_t pid) {
    int status = 0;
    if (pid < 0 || waitpid(pid, &status, 0) != pid) return 0;
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static int by_vfork(void) {
    pid_t pid = vfork();
    if (pid == 0) _exit(child((void *)20000));
    return ended_well(pid);
}

/* A child of a child. */
static int by_nested_vfork(void) {
    pid_t pid = vfork();
    if (pid == 0) {
        pid_t inner = vfork();
        if (inner == 0) _exit(child((void *)5000));
        _exit(ended_well(inner) && child((void *)5000) == 0 ? 0 : 1);
    }
    return ended_well(pid);
}

/* As Java's runtime does it: the child looks for open files, then executes. */
static int by_vfork_and_opendir(void) {
    pid_t pid = vfork();
    if (pid == 0) {
        pin(second);
        for (int turn = 0; turn < 50; turn++) {
            DIR *files = opendir("/proc/self/fd");
            if (!files) _exit(1);
            while (readdir(files)) {}
            closedir(files);
        }
        execl("/bin/true", "true", (char *)0);
        _exit(2);
    }
    return ended_well(pid);
}

static char stack[1 << 18] __attribute__((aligned(64)));

static int by_clone_as_vfork(void) {
    return ended_well(clone(child, stack + sizeof stack, CLONE_VM | CLONE_VFORK | SIGCHLD, (void *)20000));
}

/* The parent waits, as it must: both have one errno. */
static int by_clone(void) {
    return ended_well(clone(child, stack + sizeof stack, CLONE_VM | SIGCHLD, (void *)20000));
}

/* Whether what this thread frees is free: a thread that seems to hold a lock, as one that is interrupted does, puts it
   aside. Not where it is kept from use for a while. */
static int frees(void *blocks[LARGE]) {
    size_t before = mallinfo2().uordblks;
    for (int place = 0; place < LARGE; place++) free(blocks[place]);
    const char *hardened = getenv("PERSEQ_HARDENED");
    if (hardened && *hardened == '1') return 1;
    return mallinfo2().uordblks + LARGE * 200000 * 3 / 4 < before;
}

/* Both run: the parent allocates while its child does. */
static int by_clone_at_once(void) {
    void *blocks[LARGE];
    for (int place = 0; place < LARGE; place++) blocks[place] = malloc(200000);
    pid_t pid = clone(child, stack + sizeof stack, CLONE_VM | SIGCHLD, (void *)20000);
    return churn(97, 40000) && ended_well(pid) && frees(blocks);
}

/* A child with memory of its own, by the same function. */
/* While the others are in the middle of something on another CPU, where there are two. */
static int by_clone_as_fork(void) {
    pin(second);
    return ended_well(clone(child, stack + sizeof stack, SIGCHLD, (void *)2000));
}

static int by_posix_spawn(void) {
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_addclose(&actions, 0);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETPGROUP);
    pid_t pid = -1;
    char *arguments[] = {"sh", "-c", "exit 0", 0};
    int error = posix_spawnp(&pid, "sh", &actions, &attributes, arguments, environ);
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
    FILE *other = popen("echo 1", "r");
    int answer = 0;
    int read = other && fscanf(other, "%d", &answer) == 1 && pclose(other) == 0 && answer == 1;
    return error == 0 && ended_well(pid) && read && system("exit 3") == 3 << 8;
}

/* What fails is said as by libc. */
static int by_refusal(void) {
    errno = 0;
    if (clone(0, stack + sizeof stack, SIGCHLD, 0) != -1 || errno != EINVAL) return 0;
    errno = 0;
    if (clone(child, 0, SIGCHLD, 0) != -1 || errno != EINVAL) return 0;
    errno = 0;
    if (clone(child, stack + sizeof stack, CLONE_SIGHAND, 0) != -1 || errno != EINVAL) return 0;
    errno = 77;
    pid_t pid = vfork();
    if (pid == 0) _exit(0);
    return ended_well(pid) && errno == 77;
}

int main(int count, char **arguments) {
    static const struct {
        const char *name;
        int (*run)(void);
    } ways[] = {
        {"vfork", by_vfork},
        {"nested", by_nested_vfork},
        {"opendir", by_vfork_and_opendir},
        {"clone-as-vfork", by_clone_as_vfork},
        {"clone", by_clone},
        {"clone-at-once", by_clone_at_once},
        {"clone-as-fork", by_clone_as_fork},
        {"posix_spawn", by_posix_spawn},
        {"refusal", by_refusal},
    };
    if (count < 3) return 64;
    seconds = atof(arguments[2]);
    find_cpus();
    pthread_t workers[WORKERS];
    for (uintptr_t number = 0; number < WORKERS; number++) pthread_create(&workers[number], 0, work, (void *)(number + 1));
    for (unsigned way = 0; way < sizeof ways / sizeof *ways; way++) {
        if (strcmp(ways[way].name, arguments[1])) continue;
        double begin = now();
        int turns = 0;
        do {
            pin(first);
            if (!churn(50, 100)) atomic_store(&lost, 1); /* the area says where we are */
            if (!ways[way].run()) return printf("%s: child %d failed\n", arguments[1], turns), 1;
            if (!churn(51, 1000)) atomic_store(&lost, 1);
            turns++;
        } while (now() - begin < seconds && !atomic_load(&lost));
        atomic_store(&stop, 1);
        for (int worker = 0; worker < WORKERS; worker++) pthread_join(workers[worker], 0);
        if (atomic_load(&lost)) return printf("%s: a block had two owners\n", arguments[1]), 1;
        return printf("%d children\n", turns), 0;
    }
    return 64;
}
