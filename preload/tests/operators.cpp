// operator new and delete in all forms, and what they do without memory. Prints "conforms", or what does not.
#include <malloc.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <string>
#include <vector>

#define CHECK(what) do { if (!(what)) { std::printf("line %d: %s\n", __LINE__, #what); std::exit(1); } } while (0)

static int calls = 0;
static volatile std::size_t impossible = SIZE_MAX / 2;

static void gives_up() {
    if (++calls == 3) std::set_new_handler(nullptr);
}
struct Thrown : std::bad_alloc {};
static void throws() {
    ++calls;
    throw Thrown();
}

template <typename Exception, typename Call> static void expect(Call call) {
    // So that frames with destructors are unwound too.
    std::string witness(100, 'x');
    try {
        call();
    } catch (Exception &) {
        CHECK(witness.size() == 100);
        return;
    }
    CHECK(!"an exception");
}

struct alignas(256) Wide { char bytes[256]; };
struct Counted {
    static int alive;
    Counted() { ++alive; }
    ~Counted() { --alive; }
    char bytes[40];
};
int Counted::alive = 0;

template <typename Call> static void no_memory(Call call) {
    calls = 0;
    std::set_new_handler(nullptr);
    expect<std::bad_alloc>(call);
    std::set_new_handler(gives_up);
    expect<std::bad_alloc>(call);
    CHECK(calls == 3);
    std::set_new_handler(throws);
    expect<Thrown>(call);
    CHECK(calls == 4);
    std::set_new_handler(nullptr);
}

int main() {
    const std::align_val_t wide{256};
    for (std::size_t size = 0; size < 100000; size += size < 300 ? 1 : 4093) {
        void *p = ::operator new(size), *q = ::operator new[](size);
        void *r = ::operator new(size, std::nothrow), *s = ::operator new[](size, std::nothrow);
        CHECK(p && q && r && s && p != q && r != s);
        for (void *each : {p, q, r, s}) {
            CHECK(reinterpret_cast<std::uintptr_t>(each) % __STDCPP_DEFAULT_NEW_ALIGNMENT__ == 0);
            CHECK(malloc_usable_size(each) >= size);
            std::memset(each, 1, size);
        }
        ::operator delete(p, size);
        ::operator delete[](q, size);
        ::operator delete(r, std::nothrow);
        ::operator delete[](s, std::nothrow);
        p = ::operator new(size, wide), q = ::operator new[](size, wide);
        r = ::operator new(size, wide, std::nothrow), s = ::operator new[](size, wide, std::nothrow);
        for (void *each : {p, q, r, s}) {
            CHECK(reinterpret_cast<std::uintptr_t>(each) % 256 == 0);
            std::memset(each, 1, size);
        }
        ::operator delete(p, size, wide);
        ::operator delete[](q, size, wide);
        ::operator delete(r, wide, std::nothrow);
        ::operator delete[](s, wide, std::nothrow);
        p = ::operator new(size, wide), q = ::operator new[](size, wide);
        ::operator delete(p, wide);
        ::operator delete[](q, wide);
        p = ::operator new(size), q = ::operator new[](size);
        ::operator delete(p);
        ::operator delete[](q);
    }
    ::operator delete(nullptr);
    ::operator delete[](nullptr, std::size_t{8});

    delete new Wide;
    delete[] new Wide[3];
    Counted *counted = new Counted[17];
    CHECK(Counted::alive == 17);
    delete[] counted;
    CHECK(Counted::alive == 0);
    std::vector<std::string> strings;
    for (int i = 0; i < 1000; i++) strings.push_back(std::string(i, 'a'));

    no_memory([] { ::operator delete(::operator new(impossible)); });
    no_memory([] { ::operator delete[](::operator new[](impossible)); });
    no_memory([&] { ::operator delete(::operator new(impossible, wide), wide); });
    no_memory([&] { ::operator delete[](::operator new[](impossible, wide), wide); });
    std::set_new_handler(throws);
    CHECK(::operator new(impossible, std::nothrow) == nullptr);
    CHECK(::operator new[](impossible, wide, std::nothrow) == nullptr);
    std::set_new_handler(nullptr);

    std::puts("conforms");
    return 0;
}
