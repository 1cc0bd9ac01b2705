/* Misuses memory in the way its argument names. */
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

__attribute__((weak)) void free_sized(void *, size_t);

int main(int count, char **arguments) {
    static char foreign[64];
    const struct rlimit none = {0, 0};
    setrlimit(RLIMIT_CORE, &none);
    const char *misuse = count > 1 ? arguments[1] : "";
    char *volatile block = malloc(100), *volatile large = malloc(1 << 20);
    if (!strcmp(misuse, "double")) free(block);
    if (!strcmp(misuse, "double-large")) free(large);
    if (!strcmp(misuse, "middle")) free(block + 16);
    if (!strcmp(misuse, "foreign")) free(foreign);
    if (!strcmp(misuse, "sized")) free_sized(block, 300);
    free(block);
    free(large);
    if (!strcmp(misuse, "late")) {
        block[50] = 1;
        for (int i = 0; i < 3000; i++) free(malloc(500));
    }
    return 0;
}
