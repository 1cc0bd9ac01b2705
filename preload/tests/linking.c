/* perseq.h and the prefixed names, from C and from C++, linked in both ways. Prints the mode. */
#include <malloc.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <perseq.h>

#define CHECK(what) do { if (!(what)) { printf("line %d: %s\n", __LINE__, #what); return 1; } } while (0)

int main(void) {
    char *mine = (char *)perseq_malloc(100);
    CHECK(mine && (uintptr_t)mine % 16 == 0 && perseq_malloc_usable_size(mine) >= 100);
    memset(mine, 1, 100);
    mine = (char *)perseq_realloc(mine, 100000);
    CHECK(mine && mine[99] == 1);
    /* The standard names are the same heap, also under glibc's own names. */
    struct mallinfo2 before = perseq_mallinfo2();
    char *standard = (char *)malloc(200000);
    CHECK(standard && perseq_mallinfo2().uordblks >= before.uordblks + 200000);
    CHECK(perseq_malloc_usable_size(standard) == malloc_usable_size(standard));
    perseq_free(standard);
    free(mine);
    void *aligned = NULL;
    CHECK(perseq_posix_memalign(&aligned, 4096, 10) == 0 && (uintptr_t)aligned % 4096 == 0);
    perseq_free_aligned_sized(aligned, 4096, 10);
    void *zeroes = perseq_calloc(10, 10);
    CHECK(zeroes);
    perseq_free_sized(zeroes, 100);
    perseq_drain();
    perseq_malloc_trim(0);
    CHECK(perseq_write_stats(1, 1) == 0);
    CHECK(perseq_write_stats(-1, 0) == -1);
    fflush(stdout);
    printf("%s\n", perseq_mode());
    return 0;
}
