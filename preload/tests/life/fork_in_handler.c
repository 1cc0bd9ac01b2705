// A timer's handler forks, wherever it interrupts an allocation, in a process of one thread. Both processes go on with
// what was interrupted: the parent to the end, every other child some way, the rest end in the handler. A thread changes
// its lists in steps where they are its own: there, a handler that allocates and returns is not safe, and none does.
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

static volatile sig_atomic_t forks, child_goes_on, armed;
static int own_lists;

static void on_timer(int signal) {
    pid_t child = fork();
    if (child == 0) {
        struct sigaction action;
        memset(&action, 0, sizeof action);
        action.sa_handler = SIG_DFL;
        sigaction(SIGALRM, &action, NULL);
        alarm(20);
        int ends = forks % 2;
        // fork's child has a heap, even here.
        if (ends || !own_lists) {
            void *blocks[60];
            for (int i = 0; i < 60; i++) memset(blocks[i] = malloc(1 + i * 1200), i, 1);
            for (int i = 0; i < 60; i++) free(blocks[i]);
        }
        if (ends) _exit(0);
        armed = 1; // never again here
        child_goes_on = 1;
        return;
    }
    int status = 1;
    if (waitpid(child, &status, 0) != child || status != 0) {
        static const char bad[] = "a child did not end well\n";
        if (write(2, bad, sizeof bad - 1)) {}
        _exit(3);
    }
    forks++;
    armed = 0;
    (void)signal;
}

// One signal at a time, some microseconds from now: the program must get on between two.
static void arm(unsigned microseconds) {
    struct itimerval once = {{0, 0}, {0, microseconds}};
    armed = 1;
    setitimer(ITIMER_REAL, &once, NULL);
}

static void churn(unsigned turns, int with_signals) {
    enum { HELD = 4000 };
    static unsigned char *held[HELD];
    static unsigned seed = 1;
    for (unsigned turn = 0; turn < turns; turn++) {
        for (int i = 0; i < HELD; i++) {
            seed = seed * 1664525 + 1013904223;
            unsigned place = (seed >> 8) % HELD;
            size_t size = 1 + (seed >> 20) * ((seed >> 16) % 16 == 0 ? 40 : 1);
            if (held[place] && held[place][0] != (unsigned char)place) abort();
            free(held[place]);
            held[place] = malloc(size);
            held[place][0] = (unsigned char)place;
            if (with_signals && !armed) arm(20 + (seed >> 10) % 800);
        }
    }
}

int main(void) {
    const char *mode = getenv("PERSEQ_MODE");
    own_lists = mode && strncmp(mode, "perthread", 9) == 0;
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_timer;
    action.sa_flags = SA_RESTART;
    sigaction(SIGALRM, &action, NULL);
    while (forks < 80 && !child_goes_on) churn(1, 1);
    if (child_goes_on) {
        churn(2, 0);
        _exit(0);
    }
    signal(SIGALRM, SIG_IGN);
    churn(20, 0);
    puts("80 forks");
    return 0;
}
