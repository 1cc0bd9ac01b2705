/* A program that locks its memory and may lock only so much, in MiB: the argument. Without the privilege to lock more. */
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

int main(int count, char **arguments) {
    struct rlimit limit;
    rlim_t most = (rlim_t)atol(arguments[count - 1]) << 20;
    free(malloc(100));
    if (getrlimit(RLIMIT_MEMLOCK, &limit)) return 1;
    if (limit.rlim_max < most) most = limit.rlim_max;
    limit.rlim_cur = limit.rlim_max = most;
    if (setrlimit(RLIMIT_MEMLOCK, &limit)) { perror("setrlimit"); return 1; }
    if (geteuid() == 0 && (setgroups(0, NULL) || setgid(65534) || setuid(65534))) { perror("setuid"); return 1; }
    if (mlockall(MCL_CURRENT | MCL_FUTURE)) { perror("mlockall"); return 1; }
    static const size_t sizes[] = {1, 1000, 30000, 100000, 1 << 20};
    for (size_t index = 0; index < sizeof sizes / sizeof *sizes; index++) {
        char *block = malloc(sizes[index]);
        if (!block) { printf("no %zu bytes\n", sizes[index]); return 1; }
        memset(block, 1, sizes[index]);
        free(block);
    }
    /* The limit limits. */
    if (malloc(most)) { puts("more was locked than may be"); return 1; }
    puts("locked");
    return 0;
}
