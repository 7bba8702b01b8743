/*
 * operators.cc - every form of C++'s operators new and delete, and what happens when there is no memory. C++17.
 */
#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <string>
#include <thread>
#include <unistd.h>
#include <vector>

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            std::printf("line %d: %s\n", __LINE__, #condition);                                                        \
            std::fflush(stdout);                                                                                       \
            _exit(1);                                                                                                  \
        }                                                                                                              \
    } while (0)

static volatile std::size_t too_large = static_cast<std::size_t>(PTRDIFF_MAX) - 10000;
static thread_local int unwound;

struct Unwinds {
    ~Unwinds() { unwound++; }
};

/* A compiler may leave out an allocation that nobody looks at. */
static void *seen(void *p) {
    __asm__ volatile("" : "+r"(p) : : "memory");
    return p;
}

static bool is_aligned(void *p, std::size_t alignment) {
    return (reinterpret_cast<std::uintptr_t>(seen(p)) & (alignment - 1)) == 0;
}

static void filled(void *p, std::size_t size, std::size_t alignment) {
    CHECK(p != nullptr && is_aligned(p, alignment));
    std::memset(p, 1, size);
}

static void all_forms() {
    for (volatile std::size_t size = 0; size < 100000; size = size * 3 + 1) {
        const std::size_t n = size;
        void *p = seen(::operator new(n));
        filled(p, n, 16);
        ::operator delete(p);
        p = seen(::operator new(n));
        ::operator delete(p, n);
        p = seen(::operator new[](n));
        filled(p, n, 16);
        ::operator delete[](p);
        p = seen(::operator new[](n));
        ::operator delete[](p, n);
        p = seen(::operator new(n, std::nothrow));
        filled(p, n, 16);
        ::operator delete(p, std::nothrow);
        p = seen(::operator new[](n, std::nothrow));
        filled(p, n, 16);
        ::operator delete[](p, std::nothrow);
        for (std::size_t a = 1; a <= 8192; a *= 4) {
            const std::align_val_t alignment{a};
            p = seen(::operator new(n, alignment));
            filled(p, n, a);
            ::operator delete(p, alignment);
            p = seen(::operator new(n, alignment));
            ::operator delete(p, n, alignment);
            p = seen(::operator new[](n, alignment));
            filled(p, n, a);
            ::operator delete[](p, alignment);
            p = seen(::operator new[](n, alignment));
            ::operator delete[](p, n, alignment);
            p = seen(::operator new(n, alignment, std::nothrow));
            filled(p, n, a);
            ::operator delete(p, alignment, std::nothrow);
            p = seen(::operator new[](n, alignment, std::nothrow));
            filled(p, n, a);
            ::operator delete[](p, alignment, std::nothrow);
        }
    }
    ::operator delete(nullptr);
    ::operator delete[](nullptr);
    ::operator delete(nullptr, std::size_t(8));
}

template <typename Call> static void throws(Call call) {
    bool thrown = false;
    int before = unwound;
    try {
        Unwinds guard;
        call();
        CHECK(false);
    } catch (const std::bad_alloc &) {
        thrown = true;
    }
    CHECK(thrown && unwound == before + 1);
}

static void each_throws() {
    const std::align_val_t alignment{256};
    throws([] { seen(::operator new(too_large)); });
    throws([] { seen(::operator new[](too_large)); });
    throws([&] { seen(::operator new(too_large, alignment)); });
    throws([&] { seen(::operator new[](too_large, alignment)); });
    CHECK(seen(::operator new(too_large, std::nothrow)) == nullptr);
    CHECK(seen(::operator new[](too_large, std::nothrow)) == nullptr);
    CHECK(seen(::operator new(too_large, alignment, std::nothrow)) == nullptr);
    CHECK(seen(::operator new[](too_large, alignment, std::nothrow)) == nullptr);
}

static int handled;
static void handler() {
    if (++handled == 3) std::set_new_handler(nullptr);
}
static void throwing_handler() {
    handled++;
    throw std::bad_alloc();
}
struct Other {};
static void other_handler() { throw Other(); }

static void handlers() {
    const std::align_val_t alignment{64};
    for (int form = 0; form < 6; form++) {
        handled = 0;
        std::set_new_handler(handler);
        if (form == 0) throws([] { seen(::operator new(too_large)); });
        if (form == 1) throws([] { seen(::operator new[](too_large)); });
        if (form == 2) throws([&] { seen(::operator new(too_large, alignment)); });
        if (form == 3) CHECK(seen(::operator new(too_large, std::nothrow)) == nullptr);
        if (form == 4) CHECK(seen(::operator new[](too_large, std::nothrow)) == nullptr);
        if (form == 5) CHECK(seen(::operator new(too_large, alignment, std::nothrow)) == nullptr);
        if (handled != 3) std::printf("form %d: the handler was called %d times\n", form, handled);
        CHECK(handled == 3);
    }
    handled = 0;
    std::set_new_handler(throwing_handler);
    throws([] { seen(::operator new(too_large)); });
    CHECK(handled == 1);
    CHECK(seen(::operator new(too_large, std::nothrow)) == nullptr);
    CHECK(seen(::operator new(too_large, alignment, std::nothrow)) == nullptr);
    CHECK(handled == 3);
    std::set_new_handler(other_handler);
    bool caught = false;
    try {
        seen(::operator new(too_large));
    } catch (const Other &) {
        caught = true;
    }
    CHECK(caught);
    std::set_new_handler(nullptr);
}

/* The library's containers, with elements that ask for more than 16 bytes of alignment, in several threads. */
struct alignas(64) Line {
    char bytes[64];
};

static void containers() {
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; i++) {
        threads.emplace_back([] {
            std::vector<Line> lines;
            std::vector<std::string> texts;
            for (int j = 0; j < 5000; j++) {
                lines.push_back(Line());
                CHECK(is_aligned(&lines[0], 64));
                texts.push_back(std::string(static_cast<std::size_t>(j % 100), 'x'));
            }
            throws([] {
                std::vector<char> v(too_large);
                seen(v.data());
            });
        });
    }
    for (auto &thread : threads) thread.join();
    std::vector<int> grown;
    try {
        grown.reserve(too_large);
        CHECK(false);
    } catch (const std::exception &) {
    }
}

int main() {
    all_forms();
    each_throws();
    handlers();
    containers();
    std::puts("all forms are right");
    return 0;
}
