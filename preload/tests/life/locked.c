// Memory that the kernel does not take back: one page of a block is locked and the block freed (`page`), or a filter
// refuses madvise (`filter`). `trim`: what else is free goes back. `end`: the main thread ends, and with it the process.
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <malloc.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "resident.h"

enum { BLOCKS = 1200, SIZE = 90000 };

static void refuse_madvise(void) {
    struct sock_filter rules[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_madvise, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog filter = {sizeof rules / sizeof *rules, rules};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter)) exit(5);
}

static void ended(void) {
    static const char text[] = "the process ended\n";
    if (write(1, text, sizeof text - 1)) {}
}

int main(int count, char **arguments) {
    if (count != 3) return 2;
    static char *blocks[BLOCKS];
    long before = resident();
    for (int i = 0; i < BLOCKS; i++) memset(blocks[i] = malloc(SIZE), 1, SIZE);
    long page = sysconf(_SC_PAGESIZE);
    char *locked = (char *)(((uintptr_t)blocks[BLOCKS / 2] + (uintptr_t)page - 1) & -(uintptr_t)page);
    if (!strcmp(arguments[2], "filter")) refuse_madvise();
    else if (mlock(locked, (size_t)page)) return perror("mlock"), 6;
    for (int i = 0; i < BLOCKS; i++) free(blocks[i]);
    if (!strcmp(arguments[1], "trim")) {
        malloc_trim(0);
        long left = resident() - before;
        printf("%ld KiB are left\n", left);
        // The caches' share and the like, of a hundred megabytes.
        if (left > 8192) return 3;
        if (munlock(locked, (size_t)page)) return perror("munlock"), 7;
        malloc_trim(0);
        for (int i = 0; i < BLOCKS; i++) memset(blocks[i] = malloc(SIZE), 1, SIZE);
        for (int i = 0; i < BLOCKS; i++) free(blocks[i]);
        puts("the rest went back");
        return 0;
    }
    atexit(ended);
    pthread_exit(NULL);
}
