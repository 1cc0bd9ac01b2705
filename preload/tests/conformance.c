/* What POSIX, C23 and glibc promise of the malloc family. Exits 0, or says which promise was broken. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <malloc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* C23, which this C library does not declare. */
__attribute__((weak)) void free_sized(void *, size_t);
__attribute__((weak)) void free_aligned_sized(void *, size_t, size_t);

#define CHECK(what) do { if (!(what)) { printf("line %d: %s\n", __LINE__, #what); return 1; } } while (0)

static int zero(const char *p, size_t n) { for (size_t i = 0; i < n; i++) if (p[i]) return 0; return 1; }

static void fill(char *p, size_t n, char with) { if (p) memset(p, with, n); }

/* Blocks in destructors of thread-specific data and at exit are as good as others. */
static pthread_key_t key;
static atomic_int destroyed;
static int round_trip(void) {
    for (size_t size = 1; size < 200000; size = size * 2 + 3) {
        char *p = malloc(size);
        CHECK(p);
        fill(p, size, 7);
        p = realloc(p, size * 2);
        CHECK(p && p[size - 1] == 7);
        free(p);
    }
    return 0;
}
static void destroy(void *value) {
    /* Called again and again while there is a value: the last time after every other destructor. */
    int rounds = *(int *)value;
    free(value);
    if (round_trip() != 0) abort();
    if (rounds > 0) {
        int *again = malloc(sizeof *again);
        *again = rounds - 1;
        pthread_setspecific(key, again);
    } else {
        atomic_fetch_add(&destroyed, 1);
    }
}
static void *with_specific(void *unused) {
    int *rounds = malloc(sizeof *rounds);
    *rounds = 2;
    return pthread_setspecific(key, rounds) == 0 ? unused : "failed";
}
static void at_exit(void) {
    if (round_trip() == 0) puts("conforms");
}

static void *everything(void *unused) {
    void *kept[128] = {0};
    for (unsigned i = 0, seed = (unsigned)(uintptr_t)&i; i < 20000; i++) {
        seed = seed * 1103515245 + 12345;
        unsigned place = seed >> 16 & 127;
        free(kept[place]);
        kept[place] = malloc((seed >> 8 & 1023) + 1);
        if (!kept[place]) return "failed";
    }
    for (int i = 0; i < 128; i++) free(kept[i]);
    return unused;
}
static int other_threads(void) {
    pthread_t threads[16];
    void *result;
    CHECK(pthread_key_create(&key, destroy) == 0);
    for (int i = 0; i < 16; i++) CHECK(pthread_create(&threads[i], NULL, i % 2 ? everything : with_specific, NULL) == 0);
    for (int i = 0; i < 16; i++) CHECK(pthread_join(threads[i], &result) == 0 && result == NULL);
    CHECK(atomic_load(&destroyed) == 8);
    return 0;
}

/* Children of a process whose threads are busy allocating allocate themselves, and have threads. */
static atomic_bool stop;
static void *until_stopped(void *unused) {
    while (!atomic_load(&stop)) if (everything(NULL)) return "failed";
    return unused;
}
static int forks(void) {
    pthread_t threads[3], inside;
    void *result;
    for (int i = 0; i < 3; i++) CHECK(pthread_create(&threads[i], NULL, until_stopped, NULL) == 0);
    for (int i = 0; i < 40; i++) {
        char *before = malloc(1000 + (size_t)i);
        fill(before, 1000, (char)i);
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            alarm(60);
            int bad = before[999] != (char)i || everything(NULL) || round_trip();
            bad |= pthread_create(&inside, NULL, everything, NULL) || pthread_join(inside, &result) || result;
            free(before);
            _exit(bad ? 1 : 0);
        }
        int status;
        CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
        free(before);
    }
    atomic_store(&stop, true);
    for (int i = 0; i < 3; i++) CHECK(pthread_join(threads[i], &result) == 0 && result == NULL);
    return 0;
}

/* A library that comes and goes, with threads that use it: its TLS and the linker's lists are blocks of ours. */
static int loading(void) {
    for (int i = 0; i < 30; i++) {
        void *library = dlopen("libm.so.6", RTLD_NOW | RTLD_LOCAL);
        CHECK(library && dlsym(library, "cos"));
        CHECK(dlopen("/nonexistent.so", RTLD_NOW) == NULL && dlerror() != NULL);
        CHECK(round_trip() == 0);
        CHECK(dlclose(library) == 0);
    }
    return 0;
}

static int inspection(void) {
    struct mallinfo2 before = mallinfo2();
    char *held = malloc(10u << 20);
    struct mallinfo2 after = mallinfo2();
    CHECK(after.uordblks >= before.uordblks + (10u << 20) && after.arena >= after.uordblks);
    CHECK(after.arena == after.uordblks + after.fordblks);
    free(held);
    CHECK(mallinfo2().uordblks < after.uordblks && mallinfo2().keepcost > 0);
    /* where the kernel's page is larger than perseq's, only whole ones go back */
    CHECK(malloc_trim(0) == 1 && (mallinfo2().keepcost == 0 || sysconf(_SC_PAGESIZE) > 8192));

    char *text = NULL;
    size_t length = 0;
    FILE *stream = open_memstream(&text, &length);
    CHECK(stream && malloc_info(0, stream) == 0 && fclose(stream) == 0);
    CHECK(length > 100 && strncmp(text, "<malloc version=\"1\">", 20) == 0);
    puts("--- malloc_info");
    fputs(text, stdout);
    puts("---");
    free(text);
    errno = 0;
    CHECK(malloc_info(1, stdout) == -1 && errno == EINVAL);
    fflush(stdout);
    malloc_stats();
    return 0;
}

int main(void) {
    volatile size_t huge = SIZE_MAX / 2; /* so that the compiler does not complain */

    for (size_t size = 0; size < 70000; size += size < 2000 ? 1 : 997) {
        char *p = malloc(size);
        CHECK(p && (uintptr_t)p % 16 == 0);
        CHECK(malloc_usable_size(p) >= size);
        memset(p, 0xa5, malloc_usable_size(p));
        free(p);
        char *q = calloc(1, size);
        CHECK(q && (uintptr_t)q % 16 == 0 && zero(q, malloc_usable_size(q)));
        free(q);
    }

    void *a = malloc(0), *b = malloc(0);
    CHECK(a && b && a != b);
    free(a); free(b); free(NULL);

    errno = 0;
    CHECK(malloc(huge * 2) == NULL && errno == ENOMEM);
    errno = 0;
    CHECK(calloc(huge, 4) == NULL && errno == ENOMEM);
    errno = 0;
    CHECK(reallocarray(NULL, huge, 4) == NULL && errno == ENOMEM);
    errno = 0;
    CHECK(pvalloc(huge * 2) == NULL && errno == ENOMEM);

    /* free and successful allocation leave errno alone */
    errno = 77;
    void *kept[300];
    for (int i = 0; i < 300; i++) kept[i] = malloc(1 << (i % 20));
    for (int i = 0; i < 300; i++) free(kept[i]);
    CHECK(errno == 77);

    /* realloc */
    char *r = NULL;
    size_t old = 0;
    for (size_t size = 1; size < 5000000; old = size, size = size * 3 / 2 + 1) {
        char *moved = realloc(r, size);
        CHECK(moved && (uintptr_t)moved % 16 == 0);
        for (size_t i = 0; i < old; i += 61) CHECK(moved[i] == (char)(i * 7));
        for (size_t i = 0; i < size; i += 61) moved[i] = (char)(i * 7);
        r = moved;
    }
    for (size_t size = old; size > 0; size /= 2) {
        r = realloc(r, size);
        CHECK(r);
        for (size_t i = 0; i < size; i += 61) CHECK(r[i] == (char)(i * 7));
    }
    errno = 0;
    CHECK(realloc(r, huge * 2) == NULL && errno == ENOMEM);
    CHECK(r[0] == 0);
    CHECK(realloc(r, 0) == NULL);

    /* alignment */
    for (size_t align = sizeof(void *); align <= (64u << 20); align *= 2) {
        for (size_t size = 0; size < 5000; size += 1 + size) {
            void *p = (void *)1;
            CHECK(posix_memalign(&p, align, size) == 0 && p && (uintptr_t)p % align == 0);
            memset(p, 1, size);
            CHECK(malloc_usable_size(p) >= size);
            p = realloc(p, size + 1);
            CHECK(p);
            free(p);
            p = aligned_alloc(align, size);
            CHECK(p && (uintptr_t)p % align == 0);
            free(p);
        }
    }
    void *untouched = (void *)42;
    errno = 5;
    CHECK(posix_memalign(&untouched, 24, 8) == EINVAL && untouched == (void *)42 && errno == 5);
    CHECK(posix_memalign(&untouched, 4, 8) == EINVAL && untouched == (void *)42);
    CHECK(posix_memalign(&untouched, 64, huge * 2) == ENOMEM && untouched == (void *)42 && errno == 5);
    CHECK(aligned_alloc(64, 100) != NULL); /* the size need not be a multiple */
    errno = 0;
    CHECK(aligned_alloc(48, 100) == NULL && errno == EINVAL);
    CHECK((uintptr_t)memalign(48, 10) % 64 == 0);
    CHECK((uintptr_t)valloc(10) % 4096 == 0);
    void *page = pvalloc(10);
    CHECK((uintptr_t)page % 4096 == 0 && malloc_usable_size(page) >= 4096);
    free(page);

    CHECK(free_sized && free_aligned_sized);
    for (int bits = 0; bits < 24; bits++) {
        size_t size = ((size_t)1 << bits) + (size_t)bits;
        free_sized(malloc(size), size);
        free_sized(calloc(2, size), 2 * size);
        free_aligned_sized(aligned_alloc(128, size), 128, size);
    }
    free_sized(NULL, 8); free_aligned_sized(NULL, 8, 8);

    /* overflow, everywhere, by a little and by much */
    const size_t over[] = {SIZE_MAX, SIZE_MAX - 15, SIZE_MAX - 4095, (size_t)PTRDIFF_MAX + 1};
    for (size_t i = 0; i < sizeof over / sizeof *over; i++) {
        volatile size_t size = over[i];
        void *from[] = {malloc(size), calloc(size, 1), calloc(1, size), calloc(size, size), realloc(NULL, size),
            reallocarray(NULL, size, 2), aligned_alloc(64, size), memalign(8192, size), valloc(size), pvalloc(size)};
        for (size_t j = 0; j < sizeof from / sizeof *from; j++) CHECK(from[j] == NULL);
        errno = 0;
        CHECK(pvalloc(size) == NULL && errno == ENOMEM);
        errno = 0;
        CHECK(valloc(size) == NULL && errno == ENOMEM);
        errno = 0;
        CHECK(memalign(64, size) == NULL && errno == ENOMEM);
        errno = 0;
        void *stays = malloc(10);
        CHECK(reallocarray(stays, size, 1) == NULL && errno == ENOMEM && malloc_usable_size(stays) >= 10);
        free(stays);
    }
    errno = 0;
    CHECK(memalign(SIZE_MAX, 8) == NULL && errno == EINVAL);
    errno = 0;
    CHECK(aligned_alloc(0, 8) == NULL && errno == EINVAL);

    /* free keeps errno even if it gives pages back */
    void *blocks[64];
    for (int i = 0; i < 64; i++) memset(blocks[i] = malloc(2u << 20), 1, 4096);
    errno = 99;
    for (int i = 0; i < 64; i++) free(blocks[i]);
    CHECK(errno == 99);

    CHECK(inspection() == 0);
    CHECK(other_threads() == 0);
    CHECK(loading() == 0);
    CHECK(forks() == 0);
    CHECK(atexit(at_exit) == 0);
    return 0; /* at_exit says that it conforms */
}
