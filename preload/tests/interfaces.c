/* What the suites of glibc, Bionic, LTP and other allocators expect of the malloc family beyond its standards. Exits 0, or
   says which expectation was not met. With the argument "glibc": only what glibc does as well. */
#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <malloc.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CHECK(what) do { if (!(what)) { printf("line %d: %s\n", __LINE__, #what); return 1; } } while (0)

static bool on_glibc;

/* Blocks of about `size` bytes that were used in full and are free again, in caches and behind them. */
static void leave_traces(size_t size) {
    enum { BLOCKS = 40 };
    void *blocks[BLOCKS];
    int count = size > 100000 ? 3 : BLOCKS;
    for (int i = 0; i < count; i++) {
        blocks[i] = i % 3 ? malloc(size) : aligned_alloc(64, size);
        memset(blocks[i], 0xeb, malloc_usable_size(blocks[i]));
    }
    for (int i = 0; i < count; i++) free(blocks[i]);
}

static int is_zero(const char *block) {
    size_t size = malloc_usable_size((void *)block);
    for (size_t i = 0; i < size; i++) if (block[i]) return 0;
    return 1;
}

/* Whoever fills a zeroed block up to malloc_usable_size finds nobody's data there. */
static int calloc_is_zero_up_to_the_usable_size(void) {
    for (size_t size = 1; size < 3000000; size += size < 2048 ? 1 : size < 40000 ? 509 : size / 2) {
        leave_traces(size);
        char *blocks[4];
        for (int i = 0; i < 4; i++) {
            blocks[i] = i % 2 ? calloc(1, size) : calloc(size, 1);
            CHECK(blocks[i] && is_zero(blocks[i]));
            memset(blocks[i], 0xeb, malloc_usable_size(blocks[i]));
        }
        for (int i = 0; i < 4; i++) free(blocks[i]);
    }
    char *empty[] = {calloc(0, 0), calloc(0, 1), calloc(1, 0), malloc(0), realloc(NULL, 0)};
    for (int i = 0; i < 5; i++) {
        CHECK(empty[i] && malloc_usable_size(empty[i]) > 0);
        for (int j = 0; j < i; j++) CHECK(empty[i] != empty[j]);
    }
    for (int i = 0; i < 5; i++) free(empty[i]);
    return 0;
}

/* What succeeds leaves errno alone, whatever it asked the kernel meanwhile. */
static int success_leaves_errno(void) {
    const size_t sizes[] = {0, 1, 24, 160, 1024, 1025, 5000, 32768, 32769, 131072, 1 << 20, 9 << 20};
    for (int round = 0; round < 3; round++) {
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            size_t size = sizes[i];
            void *placed = NULL;
            errno = 1789;
            CHECK(posix_memalign(&placed, 64, size) == 0 && errno == 1789);
            void *blocks[] = {malloc(size), calloc(1, size), calloc(size, 1), realloc(NULL, size),
                reallocarray(NULL, 1, size), aligned_alloc(4096, size), memalign(128, size), valloc(size),
                pvalloc(size), placed};
            CHECK(errno == 1789);
            for (size_t j = 0; j < sizeof blocks / sizeof *blocks; j++) {
                CHECK(blocks[j] && malloc_usable_size(blocks[j]) >= size);
                blocks[j] = realloc(blocks[j], size + 100);
                CHECK(blocks[j] && errno == 1789);
                blocks[j] = realloc(blocks[j], size / 3 + 1);
                CHECK(blocks[j] && errno == 1789);
            }
            for (size_t j = 0; j < sizeof blocks / sizeof *blocks; j++) free(blocks[j]);
            CHECK(errno == 1789);
        }
        malloc_trim(0);
        mallopt(M_MMAP_THRESHOLD, 1 << 17);
        (void)mallinfo2();
        free(NULL);
        CHECK(malloc_usable_size(NULL) == 0 && errno == 1789);
    }
    return 0;
}

/* `size` can never be had: each way to ask says so, after a small block came and went. */
static int is_refused(size_t size) {
    void *small = malloc(16);
    memset(small, 7, 16);
    free(malloc(16));
    volatile size_t s = size;
    errno = 0;
    CHECK(malloc(s) == NULL && errno == ENOMEM);
    errno = 0;
    CHECK(realloc(small, s) == NULL && errno == ENOMEM && *(char *)small == 7);
    errno = 0;
    CHECK(realloc(NULL, s) == NULL && errno == ENOMEM);
    for (size_t count = 1; count <= 8; count *= 2) {
        if (s % count) break;
        errno = 0;
        CHECK(calloc(count, s / count) == NULL && errno == ENOMEM);
        errno = 0;
        CHECK(calloc(s / count, count) == NULL && errno == ENOMEM);
        errno = 0;
        CHECK(reallocarray(small, count, s / count) == NULL && errno == ENOMEM);
        errno = 0;
        CHECK(reallocarray(NULL, s / count, count) == NULL && errno == ENOMEM);
    }
    for (size_t align = 1; align > 0; align <<= 1) {
        errno = 0;
        CHECK(memalign(align, s) == NULL && errno == ENOMEM);
        void *out = small;
        if (align % sizeof(void *) == 0) {
            errno = 1789;
            CHECK(posix_memalign(&out, align, s) == ENOMEM && out == small);
            CHECK(on_glibc || errno == 1789);
        }
        errno = 0;
        CHECK(aligned_alloc(align, s) == NULL && errno == ENOMEM);
    }
    errno = 0;
    CHECK(valloc(s) == NULL && errno == ENOMEM);
    errno = 0;
    CHECK(pvalloc(s) == NULL && errno == ENOMEM);
    free(small);
    return 0;
}

static int too_large(void) {
    for (size_t i = 0; i < 1 << 14; i += i < 70 ? 1 : 513) {
        CHECK(is_refused(SIZE_MAX - i) == 0);
        CHECK(is_refused((size_t)PTRDIFF_MAX + 1 + i) == 0);
    }
    for (size_t high = 1; high < 1 << 14; high += high < 9 ? 1 : 97) {
        CHECK(is_refused(high << 50) == 0);
        CHECK(is_refused((high << 50) | ((1ul << 50) - 1)) == 0);
    }
    errno = 0;
    CHECK(reallocarray(NULL, (size_t)INTPTR_MIN + 4, 2) == NULL && errno == ENOMEM);
    return 0;
}

static int alignments(void) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    for (size_t align = 0; align <= 4100; align++) {
        size_t power = 1;
        while (power < align) power *= 2;
        char *block = memalign(align, 100);
        CHECK(block && (uintptr_t)block % power == 0 && malloc_usable_size(block) >= 100);
        memset(block, 0x23, 100);
        block = realloc(block, 300);
        CHECK(block && block[0] == 0x23 && block[99] == 0x23);
        free(block);
    }
    for (size_t align = 0; align < 3000; align++) {
        void *block = &block;
        bool right = align >= sizeof(void *) && (align & (align - 1)) == 0;
        int answer = posix_memalign(&block, align, 100);
        CHECK(answer == (right ? 0 : EINVAL));
        CHECK(right ? (uintptr_t)block % align == 0 : block == &block);
        if (right) free(block);
    }
    void *block = NULL;
    CHECK(posix_memalign(&block, SIZE_MAX, 100) == EINVAL && block == NULL);
    CHECK(posix_memalign(&block, page, -page) == ENOMEM && block == NULL);
    CHECK(posix_memalign(&block, sizeof(void *), 0) == 0 && block != NULL);
    free(block);
    volatile size_t half = SIZE_MAX / 2 + 1;
    CHECK(aligned_alloc(half, 64) == NULL);
    block = aligned_alloc(1, 64);
    CHECK(block);
    free(block);
    if (!on_glibc) { /* before 2.38 glibc rounds the alignment up */
        errno = 0;
        CHECK(aligned_alloc(65, 64) == NULL && errno == EINVAL);
        errno = 0;
        CHECK(aligned_alloc(0, 64) == NULL && errno == EINVAL);
    }
    for (size_t size = 0; size < 5 * page; size += 777) {
        void *v = valloc(size), *p = pvalloc(size);
        CHECK(v && p && (uintptr_t)v % page == 0 && (uintptr_t)p % page == 0);
        CHECK(malloc_usable_size(v) >= size && malloc_usable_size(p) >= (size + page - 1) / page * page);
        free(v);
        free(p);
    }
    return 0;
}

static int parameters(void) {
    errno = 1789;
    const int any[] = {M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD, M_MMAP_MAX, M_CHECK_ACTION, M_PERTURB,
        M_ARENA_TEST, M_ARENA_MAX, M_NLBLKS, M_GRAIN, M_KEEP};
    const int values[] = {1, 64 * 1024, 0xa5, INT_MAX, 0, -1};
    for (size_t i = 0; i < sizeof any / sizeof *any; i++) {
        for (size_t j = 0; j < sizeof values / sizeof *values; j++) {
            if (any[i] != M_PERTURB || values[j] != 0xa5 || !on_glibc) CHECK(mallopt(any[i], values[j]) == 1);
        }
    }
    for (int value = -3; value < 300; value++) CHECK(mallopt(M_MXFAST, value) == (value >= 0 && value <= 160));
    if (!on_glibc) { /* which says 1 to everything it does not know */
        CHECK(mallopt(12345, 1) == 0 && mallopt(-1000, 1) == 0 && mallopt(0, 0) == 0);
    }
    CHECK(errno == 1789);
    return 0;
}

static int same(struct mallinfo a, struct mallinfo2 b) {
    return (size_t)a.arena == b.arena && (size_t)a.ordblks == b.ordblks && (size_t)a.smblks == b.smblks
        && (size_t)a.hblks == b.hblks && (size_t)a.hblkhd == b.hblkhd && (size_t)a.usmblks == b.usmblks
        && (size_t)a.fsmblks == b.fsmblks && (size_t)a.uordblks == b.uordblks && (size_t)a.fordblks == b.fordblks
        && (size_t)a.keepcost == b.keepcost;
}

static int numbers(void) {
    const size_t sizes[] = {8, 32, 128, 4096, 32768, 131072, 1024000, 10240000, 300000000};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct mallinfo2 before = mallinfo2();
        CHECK(same(mallinfo(), before));
        char *block = malloc(sizes[i]);
        CHECK(block);
        struct mallinfo2 with = mallinfo2();
        CHECK(same(mallinfo(), with));
        CHECK(with.uordblks >= before.uordblks + malloc_usable_size(block));
        CHECK(with.arena == with.uordblks + with.fordblks);
        free(block);
        struct mallinfo2 after = mallinfo2();
        CHECK(after.uordblks < with.uordblks && after.fordblks + (with.arena - after.arena) > with.fordblks);
        CHECK(after.ordblks > with.ordblks);
    }
    enum { BLOCKS = 5000 };
    static void *blocks[BLOCKS];
    for (int i = 0; i < BLOCKS; i++) CHECK((blocks[i] = malloc(200)));
    size_t free_blocks = mallinfo2().ordblks;
    for (int i = 0; i < BLOCKS; i += 2) free(blocks[i]); /* no two side by side */
    CHECK(mallinfo2().ordblks >= free_blocks + BLOCKS / 2);
    for (int i = 1; i < BLOCKS; i += 2) free(blocks[i]);
    CHECK(mallinfo2().smblks == 0);

    FILE *unwritable = fopen("/dev/null", "r");
    CHECK(unwritable && malloc_info(0, unwritable) != 0);
    fclose(unwritable);
    CHECK(malloc_info(1, stdout) != 0);
    CHECK(malloc_trim(SIZE_MAX) >= 0 && malloc_trim(0) >= 0);
    return 0;
}

/* What the C library allocates for a program is freed by the program. */
static int of_the_library(void) {
    char *text = NULL, *path = realpath("/proc/self/exe", NULL), *here = getcwd(NULL, 0), *line = NULL;
    size_t length = 0;
    CHECK(asprintf(&text, "%0*d", 5000, 7) == 5000 && path && here);
    FILE *stream = fmemopen(text, 5000, "r");
    CHECK(stream && getline(&line, &length, stream) == 5000);
    fclose(stream);
    char *copy = strdup(line), *half = strndup(line, 2500);
    CHECK(copy && half && malloc_usable_size(copy) > 5000);
    free(text); free(path); free(here); free(line); free(copy); free(half);
    return 0;
}

static void *all(void *out) {
    int (*const parts[])(void) = {
        calloc_is_zero_up_to_the_usable_size, success_leaves_errno, too_large, alignments, of_the_library};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) if (parts[i]()) *(int *)out = 1;
    return NULL;
}

int main(int argc, char **argv) {
    on_glibc = argc > 1 && strcmp(argv[1], "glibc") == 0;
    setvbuf(stdout, NULL, _IONBF, 0);
    /* First, as free blocks become fewer when those of a whole span become pages. glibc's are of one arena, and leave
       large blocks out. */
    if (!on_glibc) CHECK(numbers() == 0);
    int bad = 0;
    all(&bad);
    CHECK(!bad);
    CHECK(parameters() == 0);
    pthread_t threads[3];
    int failed[3] = {0};
    for (int i = 0; i < 3; i++) CHECK(pthread_create(&threads[i], NULL, all, &failed[i]) == 0);
    for (int i = 0; i < 3; i++) CHECK(pthread_join(threads[i], NULL) == 0 && !failed[i]);
    puts("as expected");
    return 0;
}
