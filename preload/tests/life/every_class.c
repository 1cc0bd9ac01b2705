// Has a long report: it uses every size class. Ends when its standard input does.
#include <stdlib.h>
#include <unistd.h>

int main(void) {
    for (size_t size = 1; size < 40000; size += size / 10 + 1) {
        void *volatile block = malloc(size);
        free(block);
    }
    char byte;
    while (read(0, &byte, 1) > 0) {}
    return 0;
}
