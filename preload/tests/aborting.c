/* Misuses memory in the way its first argument names, with a handler of SIGABRT that does what crash reporters do: it
   allocates much and forks. Then it returns, or, if the second argument is "jump", jumps back into the program, which
   goes on. */
#include <malloc.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

__attribute__((weak)) void free_sized(void *, size_t);

enum { BLOCKS = 20000, MANY = 30000, SECONDS = 60 };

static void *blocks[BLOCKS], *many[MANY];
static char foreign[64];
static sigjmp_buf back;
static volatile int jumps;

static void say(const char *line) { write(2, line, strlen(line)); }

static size_t size_of(int number) { return number % 1000 ? 1 + number * 37 % 2000 : 100000 + number; }

static void use_heap(void) {
    for (int number = 0; number < BLOCKS; number++) {
        blocks[number] = malloc(size_of(number));
        if (!blocks[number]) _exit(3);
        memset(blocks[number], number, size_of(number));
    }
    for (int number = 0; number < BLOCKS; number++) {
        const char *bytes = blocks[number];
        if (bytes[0] != (char)number || memcmp(bytes, bytes + 1, size_of(number) - 1)) _exit(5); /* another's, too */
    }
    for (int number = 0; number < BLOCKS; number++) free(blocks[number]);
}

static void *use_heap_a_little(void *unused) {
    for (int number = 0; number < 2000; number++) free(malloc(size_of(number)));
    return unused;
}

static void fork_and_use_heap(void) {
    int status = -1;
    pid_t child = fork();
    if (child == 0) {
        alarm(SECONDS); /* not inherited */
        use_heap();
        _exit(0);
    }
    if (child < 0 || waitpid(child, &status, 0) != child || status != 0) _exit(4);
}

static void on_abort(int signal) {
    use_heap();
    fork_and_use_heap();
    say("reported\n");
    if (jumps) siglongjmp(back, 1);
}

static void misuse(const char *how) {
    char *volatile block = malloc(100), *volatile large = malloc(1 << 20);
    if (!strcmp(how, "double")) {
        free(block);
        free(block);
    }
    if (!strncmp(how, "many=", 5)) {
        int count = atoi(how + 5);
        for (int number = 0; number < count; number++) many[number] = malloc(64);
        for (int number = 0; number < count; number++) free(many[number]);
        for (int number = 0; number < count; number++) free(many[number]);
    }
    if (!strcmp(how, "many-every-other")) {
        for (int number = 0; number < MANY; number++) many[number] = malloc(700);
        for (int number = 0; number < MANY; number++) free(many[number]);
        for (int number = 0; number < 2 * MANY; number += 2) free(many[number % MANY]);
    }
    if (!strcmp(how, "double-large")) {
        free(large);
        free(large);
    }
    if (!strcmp(how, "middle")) free(block + 16);
    if (!strcmp(how, "odd")) free(block + 3);
    if (!strcmp(how, "foreign")) free(foreign);
    if (!strcmp(how, "sized")) free_sized(block, 300);
    if (!strcmp(how, "usable")) malloc_usable_size(foreign);
    if (!strcmp(how, "realloc")) realloc(foreign, 100);
    if (!strcmp(how, "realloc-large")) {
        free(large);
        realloc(large, 4 << 20);
    }
    if (!strcmp(how, "late")) {
        free(block);
        block[50] = 1;
        for (int number = 0; number < 3000; number++) free(malloc(500));
    }
    malloc_trim(0);
}

int main(int count, char **arguments) {
    const struct rlimit none = {0, 0};
    setrlimit(RLIMIT_CORE, &none);
    alarm(SECONDS);
    struct sigaction action = {.sa_handler = on_abort};
    sigaction(SIGABRT, &action, 0);
    jumps = !strcmp(arguments[2], "jump");
    if (!sigsetjmp(back, 1)) {
        misuse(arguments[1]);
        say("nobody noticed\n");
        return 1;
    }
    jumps = 0;
    pthread_t thread;
    use_heap();
    fork_and_use_heap();
    if (pthread_create(&thread, 0, use_heap_a_little, 0) || pthread_join(thread, 0)) return 2;
    malloc_trim(0);
    say("went on\n");
    return 42;
}
