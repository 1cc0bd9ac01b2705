/* libperseq under names of its own; the standard names do the same. Written from preload/src/exports.rs by
   PERSEQ_TEST_BLESS=1 cargo test -p perseq-preload --test exports */
#ifndef PERSEQ_H
#define PERSEQ_H

#include <stddef.h>
#include <stdio.h>

#ifdef __cplusplus
extern "C" {
#endif

#ifdef __GLIBC__
/* Of <malloc.h>. */
struct mallinfo;
struct mallinfo2;
#else
/* As in glibc's <malloc.h>. */
struct mallinfo { int arena, ordblks, smblks, hblks, hblkhd, usmblks, fsmblks, uordblks, fordblks, keepcost; };
struct mallinfo2 { size_t arena, ordblks, smblks, hblks, hblkhd, usmblks, fsmblks, uordblks, fordblks, keepcost; };
#endif

/* `size` bytes, aligned to 16. Null with ENOMEM if there are none; size 0 is a block of its own. */
void *perseq_malloc(size_t size);

/* `count * size` zeroed bytes, aligned to 16; zero up to malloc_usable_size. Null with ENOMEM if the product
   overflows. */
void *perseq_calloc(size_t count, size_t size);

/* Frees a block. Null is allowed. Leaves errno alone. */
void perseq_free(void *pointer);

/* Resizes a block, moving it if it must. To size 0: frees it and returns null. */
void *perseq_realloc(void *pointer, size_t size);

/* realloc to `count * size` bytes. Null with ENOMEM if the product overflows; the block stays. */
void *perseq_reallocarray(void *pointer, size_t count, size_t size);

/* C23: free, given the size that was asked for. */
void perseq_free_sized(void *pointer, size_t size);

/* C23: free, given the alignment and size that were asked for. */
void perseq_free_aligned_sized(void *pointer, size_t align, size_t size);

/* `size` bytes aligned to `align`, a power of two, else EINVAL. The size need not be a multiple, as in glibc. */
void *perseq_aligned_alloc(size_t align, size_t size);

/* Stores `size` bytes aligned to `align` in `*out`. Returns 0, EINVAL or ENOMEM and leaves errno alone; on error
   `*out` stays. */
int perseq_posix_memalign(void **out, size_t align, size_t size);

/* aligned_alloc with `align` rounded up to a power of two. */
void *perseq_memalign(size_t align, size_t size);

/* `size` bytes on a boundary of the kernel's pages. */
void *perseq_valloc(size_t size);

/* Whole kernel pages, at least `size` bytes. */
void *perseq_pvalloc(size_t size);

/* Bytes that may be used at `pointer`, at least as many as were asked for. 0 for null. */
size_t perseq_malloc_usable_size(void *pointer);

/* Gives all unused memory back to the kernel; `keep` is not used. 1 if there was any, else 0. */
int perseq_malloc_trim(size_t keep);

/* 1 for the parameters of glibc's malloc, whose values change nothing here; 0 for others, and for an M_MXFAST
   above 160 or below 0, as in glibc. */
int perseq_mallopt(int parameter, int value);

/* As mallinfo2; numbers above INT_MAX are INT_MAX. */
struct mallinfo perseq_mallinfo(void);

/* arena: bytes committed. uordblks: in the program's hands. fordblks: the rest of the arena. keepcost: free
   pages that malloc_trim gives back. ordblks: free blocks, wherever they are kept, and free pages. smblks,
   fsmblks: 0, there are no fastbins. hblks, hblkhd: 0, no block has a mapping of its own. usmblks: the most
   bytes held at once. */
struct mallinfo2 perseq_mallinfo2(void);

/* Writes statistics as text to standard error. */
void perseq_malloc_stats(void);

/* Writes statistics as XML in the form of glibc's to `stream`. `options` is 0, else -1 with EINVAL. */
int perseq_malloc_info(int options, FILE *stream);

/* The mode that runs, by the name that PERSEQ_MODE has for it: a fallback shows here. */
const char *perseq_mode(void);

/* The version of the library, as in 0.2.0. */
const char *perseq_version(void);

/* Moves all free objects from caches to the tiers behind them; returns how many bytes. */
size_t perseq_drain(void);

/* Writes statistics to the file descriptor: as text, or with `json` not 0 as one line of JSON. 0, or -1 if
   the descriptor takes no more. */
int perseq_write_stats(int file, int json);

/* Writes the heap profile that PERSEQ_PROFILE asked for to the file descriptor, as text that pprof reads. 0, or -1
   if no profile is taken or the descriptor takes no more. May be called in a signal handler. */
int perseq_write_profile(int file);

#ifdef __cplusplus
}
#endif

#endif
