/* A program with an allocator of its own under the standard names, beside libperseq's under theirs. */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <perseq.h>

#define CHECK(what) do { if (!(what)) { fprintf(stderr, "line %d: %s\n", __LINE__, #what); return 1; } } while (0)

static _Alignas(16) char arena[1 << 24];
static size_t used;

static int in_arena(const void *pointer) {
    return (uintptr_t)pointer - (uintptr_t)arena < sizeof arena;
}

void *malloc(size_t size) {
    size_t start = used;
    used += (size + 31) & ~(size_t)15; /* at least 16 bytes apart */
    return used <= sizeof arena ? arena + start : NULL;
}

void free(void *pointer) {
    if (pointer && !in_arena(pointer)) __builtin_trap(); /* a block of libperseq's came to us */
}

void *calloc(size_t count, size_t size) {
    return malloc(count * size); /* fresh memory of the arena is zero */
}

void *realloc(void *pointer, size_t size) {
    char *moved = malloc(size);
    if (pointer && moved) memcpy(moved, pointer, (size_t)(moved - (char *)pointer) < size ? (size_t)(moved - (char *)pointer) : size);
    return moved;
}

int main(void) {
    char *own = malloc(100);
    CHECK(in_arena(own));
    size_t before = used;
    char *mine = perseq_malloc(100);
    CHECK(mine && !in_arena(mine) && perseq_malloc_usable_size(mine) >= 100);
    mine = perseq_realloc(mine, 100000);
    CHECK(mine && !in_arena(mine));
    perseq_free(mine);
    mine = perseq_calloc(10, 10);
    CHECK(mine && !in_arena(mine));
    perseq_free_sized(mine, 100);
    void *aligned = NULL;
    CHECK(perseq_posix_memalign(&aligned, 4096, 10) == 0 && !in_arena(aligned));
    perseq_free(aligned);
    CHECK(used == before);
    free(own);
    puts("both");
    return 0;
}
