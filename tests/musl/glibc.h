/* What glibc's <malloc.h> declares and musl's does not, for C programs of the tests. Weak: the program links without
   libperseq, which is preloaded. */
#define _GNU_SOURCE // as the programs do
#include "../../preload/include/perseq.h"

#pragma weak mallinfo
#pragma weak mallinfo2
#pragma weak mallopt
#pragma weak malloc_trim
#pragma weak malloc_stats
#pragma weak malloc_info
#pragma weak pvalloc
struct mallinfo mallinfo(void);
struct mallinfo2 mallinfo2(void);
int mallopt(int, int);
int malloc_trim(size_t);
void malloc_stats(void);
int malloc_info(int, FILE *);
void *pvalloc(size_t);

#define __rlimit_resource_t int

enum {
    M_MXFAST = 1, M_NLBLKS, M_GRAIN, M_KEEP,
    M_ARENA_MAX = -8, M_ARENA_TEST, M_PERTURB, M_CHECK_ACTION, M_MMAP_MAX, M_MMAP_THRESHOLD, M_TOP_PAD, M_TRIM_THRESHOLD,
};
