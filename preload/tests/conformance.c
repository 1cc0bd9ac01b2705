/* What POSIX, C23 and glibc promise of the malloc family. Exits 0, or says which promise was broken. */
#define _GNU_SOURCE
#include <errno.h>
#include <malloc.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CHECK(what) do { if (!(what)) { printf("line %d: %s\n", __LINE__, #what); return 1; } } while (0)

static int zero(const char *p, size_t n) { for (size_t i = 0; i < n; i++) if (p[i]) return 0; return 1; }

int main(void) {
    volatile size_t huge = SIZE_MAX / 2; /* so that the compiler does not complain */

    for (size_t size = 0; size < 70000; size += size < 2000 ? 1 : 997) {
        char *p = malloc(size);
        CHECK(p && (uintptr_t)p % 16 == 0);
        CHECK(malloc_usable_size(p) >= size);
        memset(p, 0xa5, malloc_usable_size(p));
        free(p);
        char *q = calloc(1, size);
        CHECK(q && (uintptr_t)q % 16 == 0 && zero(q, size));
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

    puts("conforms");
    return 0;
}
