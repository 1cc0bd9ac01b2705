// Functions that allocate known numbers of blocks of known sizes: so many of each are kept as the arguments say, and as
// many again are freed. Then the program ends as the first argument says.
#include <cstdlib>
#include <cstring>
#include <string>
#include <unistd.h>
#include <vector>

namespace planted {

static std::vector<char *> kept_blocks;

template <typename T> static T *touched(T *block, std::size_t bytes) {
    std::memset(block, 1, bytes);
    asm volatile("" : : "r"(block) : "memory"); // somebody may look at it: compilers leave no pair of malloc and free out
    return block;
}

__attribute__((noinline)) void by_new(int count) {
    for (int i = 0; i < count; i++) {
        kept_blocks.push_back(touched(new char[2048], 2048));
        delete[] touched(new char[2048], 2048);
    }
}

inline __attribute__((always_inline)) void inlined(int count) {
    for (int i = 0; i < count; i++) {
        kept_blocks.push_back(touched(static_cast<char *>(malloc(1280)), 1280));
        free(touched(static_cast<char *>(malloc(1280)), 1280));
    }
}

__attribute__((noinline)) void by_malloc(int count) {
    inlined(count);
    asm volatile("");
}

} // namespace planted

int main(int argc, char **argv) {
    if (argc != 4)
        return 2;
    planted::by_new(std::atoi(argv[2]));
    planted::by_malloc(std::atoi(argv[3]));
    std::string how = argv[1];
    if (how == "abort")
        abort();
    if (how == "_exit")
        _exit(0);
    return std::atoi(argv[1]);
}
