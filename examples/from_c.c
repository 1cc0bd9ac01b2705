/* perseq from C, under names of its own beside the C library's malloc.

     preload/install.sh PREFIX
     cc -I PREFIX/include examples/from_c.c -L PREFIX/lib -Wl,-rpath,PREFIX/lib -lperseq

   Linked so, the standard names are perseq's as well. To run a program that was not built for it:
   LD_PRELOAD=PREFIX/lib/libperseq.so program */
#include <perseq.h>
#include <stdio.h>
#include <string.h>

int main(void) {
    char *text = perseq_malloc(100);
    if (!text) return 1;
    strcpy(text, "a block of perseq's");
    text = perseq_realloc(text, 10000);
    if (!text) return 1;
    printf("%s, %zu bytes, mode %s\n", text, perseq_malloc_usable_size(text), perseq_mode());
    perseq_free(text);

    perseq_drain(); /* what the caches hold goes to the tiers behind them */
    fflush(stdout);
    return perseq_write_stats(1, 1); /* to the standard output, as JSON */
}
