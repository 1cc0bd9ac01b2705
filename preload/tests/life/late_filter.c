// Threads that exist already, after a filter was set that kills the process at any system call but those that a
// sandboxed program needs to compute: they allocate for the first time, move between CPUs, give memory back, move large
// blocks. What the threads themselves need (affinity) another process does for them.
#define _GNU_SOURCE
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <malloc.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { THREADS = 4 };
static const int ALLOWED[] = {
    SYS_read, SYS_write, SYS_exit, SYS_exit_group, SYS_mmap, SYS_munmap, SYS_mprotect, SYS_madvise, SYS_mremap,
    SYS_futex, SYS_rt_sigaction, SYS_rt_sigprocmask, SYS_rt_sigreturn, SYS_membarrier, SYS_getcpu,
};
static atomic_int ready, go, done;
static pid_t ids[THREADS];

static int set_filter(void) {
    enum { COUNT = sizeof ALLOWED / sizeof *ALLOWED };
    struct sock_filter program[COUNT + 3];
    int length = 0;
    program[length++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    for (int i = 0; i < COUNT; i++)
        program[length++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ALLOWED[i], COUNT - i, 0);
    program[length++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
    program[length++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    struct sock_fprog filter = {(unsigned short)length, program};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) return -1;
    return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &filter);
}

static void use_heap(unsigned seed, int rounds) {
    enum { COUNT = 1500 };
    static __thread unsigned char *blocks[COUNT];
    for (int round = 0; round < rounds; round++) {
        for (int i = 0; i < 4 * COUNT; i++) {
            seed = seed * 1664525 + 1013904223;
            unsigned place = (seed >> 8) % COUNT;
            size_t size = 1 + (seed >> 20) * ((seed >> 16) % 64 == 0 ? 60 : 1);
            if (blocks[place] && blocks[place][0] != (unsigned char)place) abort();
            if (seed % 5 == 0) blocks[place] = realloc(blocks[place], size);
            else {
                free(blocks[place]);
                blocks[place] = malloc(size);
            }
            blocks[place][0] = (unsigned char)place;
        }
        char *block = malloc(200000);
        char *behind = malloc(200000);
        for (int i = 1; i < 8; i++) {
            block = realloc(block, 200000 << i);
            block[(200000 << i) - 1] = 1;
        }
        free(block);
        free(behind);
        if (round % 4 == 3) malloc_trim(0);
    }
    for (int i = 0; i < COUNT; i++) {
        free(blocks[i]);
        blocks[i] = NULL;
    }
}

static void *run(void *number) {
    ids[(size_t)number] = (pid_t)syscall(SYS_gettid);
    ready++;
    while (!go) {}
    use_heap((unsigned)(size_t)number + 1, 16);
    done++;
    while (done < THREADS + 1) {}
    return NULL;
}

int main(void) {
    free(malloc(1));
    pthread_t threads[THREADS];
    for (size_t i = 0; i < THREADS; i++) pthread_create(&threads[i], NULL, run, (void *)i);
    while (ready < THREADS) usleep(100);
    // From outside the filter: the threads, and this one, are moved about until the process ends.
    pid_t self = getpid();
    pid_t mover = fork();
    if (mover == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        long cpus = sysconf(_SC_NPROCESSORS_ONLN);
        for (unsigned turn = 0; turn < 60000; turn++) {
            pid_t id = turn % (THREADS + 1) == THREADS ? self : ids[turn % (THREADS + 1)];
            cpu_set_t one;
            CPU_ZERO(&one);
            CPU_SET(turn / (THREADS + 1) % (unsigned)cpus, &one);
            if (sched_setaffinity(id, sizeof one, &one) && errno == ESRCH) break;
            usleep(500);
        }
        _exit(0);
    }
    if (set_filter()) {
        perror("seccomp");
        return 4;
    }
    go = 1;
    use_heap(99, 16);
    done++;
    while (done < THREADS + 1) {}
    static const char text[] = "no other call was made\n";
    if (write(1, text, sizeof text - 1) < 0) return 5;
    _exit(0);
}
