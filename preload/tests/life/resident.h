// What is resident of this process.
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

// In KiB. Allocates, as any use of a stream may.
static long resident(void) {
    static char text[256];
    long pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (!file || !fgets(text, sizeof text, file) || sscanf(text, "%*s %ld", &pages) != 1) exit(4);
    fclose(file);
    return pages * sysconf(_SC_PAGESIZE) >> 10;
}
