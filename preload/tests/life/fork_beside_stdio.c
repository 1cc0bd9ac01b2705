// One thread forks, others read lines, which allocates under the stream's lock, and one flushes all streams, which takes
// the list of streams and then each stream's lock. A fork takes the list, too: whoever forks must not keep the readers
// from allocating while it waits for the list.
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include "watch.h"

static atomic_int stop;
static atomic_long forks, lines, flushes;
static char *path;

static void *fork_often(void *unused) {
    while (!stop) {
        pid_t child = fork();
        if (child == 0) {
            // The child has a heap, too.
            alarm(20);
            for (int i = 0; i < 400; i++) free(malloc(1 + i * 97));
            _exit(0);
        }
        int status = 1;
        waitpid(child, &status, 0);
        if (status != 0) _exit(3);
        forks++;
        watch_count++;
    }
    return unused;
}

static void *read_lines(void *unused) {
    FILE *file = fopen(path, "r");
    while (!stop) {
        char *line = NULL;
        size_t size = 0;
        rewind(file);
        ssize_t length = getline(&line, &size, file);
        if (length != 60001 || line[0] != 'a' || line[59999] != 'a') _exit(4);
        free(line);
        lines++;
    }
    fclose(file);
    return unused;
}

static void *flush_all(void *unused) {
    while (!stop) {
        fflush(NULL);
        flushes++;
    }
    return unused;
}

int main(int count, char **arguments) {
    path = arguments[1];
    FILE *file = fopen(path, "w");
    for (int i = 0; i < 60000; i++) fputc('a', file);
    fputc('\n', file);
    fclose(file);
    watch(20);
    pthread_t threads[6];
    pthread_create(&threads[0], NULL, flush_all, NULL);
    for (int i = 1; i < 4; i++) pthread_create(&threads[i], NULL, read_lines, NULL);
    for (int i = 4; i < 6; i++) pthread_create(&threads[i], NULL, fork_often, NULL);
    sleep(count > 2 ? atoi(arguments[2]) : 2);
    stop = 1;
    for (int i = 0; i < 6; i++) pthread_join(threads[i], NULL);
    if (!forks || !lines || !flushes) return 5;
    puts("went on to the end");
    return 0;
}
