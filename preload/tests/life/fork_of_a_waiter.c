// A handler forks in the middle of an allocation, often where its thread waits for a lock that another thread holds, and
// the child goes on where the handler interrupted it. It allocates, forks and ends as any process does, within 60 s.
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { THREADS = 4, FORKS = 50, BLOCKS = 20 };

static volatile sig_atomic_t is_child;
static volatile int over, forks;
static pid_t children[FORKS];

static void on_signal(int signal) {
    (void)signal;
    if (is_child || forks == FORKS) return;
    pid_t child = fork();
    if (child == 0) is_child = 1;
    else if (child > 0) children[forks++] = child;
}

// Blocks that no cache serves, some of which are cut off and grown.
static void allocate(void) {
    char *blocks[BLOCKS];
    for (size_t i = 0; i < BLOCKS; i++) {
        blocks[i] = malloc(200000 + i * 8192);
        if (!blocks[i]) _exit(3);
        blocks[i][0] = (char)i;
    }
    for (size_t i = 0; i < BLOCKS; i++) {
        if (i % 4 == 0) blocks[i] = realloc(blocks[i], 120000 + i * 16384);
        if (!blocks[i] || blocks[i][0] != (char)i) _exit(4);
        free(blocks[i]);
    }
}

static void live_as_child(void) {
    alarm(60);
    for (int i = 0; i < 20; i++) allocate();
    for (size_t size = 1; size < 30000; size += size / 2 + 1) free(malloc(size));
    malloc_trim(0);
    pid_t child = fork();
    if (child == 0) {
        alarm(60);
        allocate();
        _exit(0);
    }
    int status = -1;
    if (child < 0 || waitpid(child, &status, 0) != child || status != 0) _exit(5);
    exit(0);
}

static void *run(void *nothing) {
    while (!over) {
        allocate();
        if (is_child) live_as_child();
    }
    return nothing;
}

int main(void) {
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    sigaction(SIGUSR1, &action, NULL);
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++) pthread_create(&threads[i], NULL, run, NULL);
    for (int turn = 0; turn < 20 * FORKS && forks < FORKS; turn++) {
        pthread_kill(threads[0], SIGUSR1);
        usleep(2000);
    }
    over = 1;
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    int bad = 0;
    for (int i = 0; i < forks; i++) {
        int status = -1;
        if (waitpid(children[i], &status, 0) != children[i] || status != 0) {
            printf("child %d: status %x\n", i, (unsigned)status);
            bad++;
        }
    }
    printf("%d of %d children were whole\n", forks - bad, FORKS);
    return bad > 0;
}
