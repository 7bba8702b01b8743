/*
 * cxx.cc - what only C++ can do: allocate in initialisers of globals, free in destructors of thread_local and static
 * objects, call from lambdas, templates and noexcept functions. Compiled as C++11, with the other sources.
 */
#include "check.h"

#include <new>
#include <string>
#include <thread>
#include <vector>


namespace {

struct Holder {
    void *block;
    explicit Holder(size_t size) : block(ak_alloc(size)) {}
    Holder(const Holder &) = delete;
    Holder &operator=(const Holder &) = delete;
    ~Holder() {
        ak_free(block);
        void *late = ak_calloc(1, 300);
        if (late == nullptr) abort();
        ak_free(late);
    }
};

int destroyed = 0;
struct Counting : Holder {
    explicit Counting(size_t size) : Holder(size) {}
    ~Counting() { __atomic_fetch_add(&destroyed, 1, __ATOMIC_RELAXED); }
};
thread_local Counting first_of_thread(700);
thread_local Counting second_of_thread(70000);

struct alignas(128) Wide {
    char bytes[200];
};

template <typename T> T *make_one() { return AK_NEW(T); }

template <typename T> struct Allocator {
    typedef T value_type;
    Allocator() {}
    template <typename U> Allocator(const Allocator<U> &) {}
    T *allocate(size_t count) {
        void *block = ak_reallocarray(nullptr, count, sizeof(T));
        if (block == nullptr) throw std::bad_alloc();
        return static_cast<T *>(block);
    }
    void deallocate(T *block, size_t count) noexcept { ak_free_sized(block, count * sizeof(T)); }
};
template <typename T, typename U> bool operator==(const Allocator<T> &, const Allocator<U> &) { return true; }
template <typename T, typename U> bool operator!=(const Allocator<T> &, const Allocator<U> &) { return false; }

} // namespace

TEST(cxx_thread_local_destructors) {
    for (int i = 0; i < 50; i++) {
        std::thread thread([] {
            CHECK(first_of_thread.block != nullptr && second_of_thread.block != nullptr);
            ak_free(ak_alloc(100));
        });
        thread.join();
    }
    CHECK(destroyed == 100);
    CHECK(ak_fault_count() == 0);
}

CHILD(cxx_has_static_objects) {
    static Holder local(1234);
    static Holder another(123456);
    CHECK(local.block != nullptr && another.block != nullptr);
    CHECK(second_of_thread.block != nullptr);
}
static child_result_t result;
TEST(cxx_static_destructors_after_main) {
    run_child("cxx_has_static_objects", nullptr, 0, &result);
    CHECK_CHILD_OK(result);
    CHECK_MSG(result.err[0] == 0, "stderr: %s", result.err);
}

/* The initialiser of a global runs outside any function: the call-site macro must work there. */
static void *global_block = ak_alloc(4242);
TEST(cxx_initialiser_of_a_global) {
    CHECK(global_block != nullptr && is_aligned(global_block, 16));
    pattern_fill(global_block, 4242, 1);
    CHECK(pattern_holds(global_block, 4242, 1));
}
/* Gives it back before the tests that count live blocks. */
static const bool global_given_back = [] {
    const char *tested = "cxx_initialiser_of_a_global";
    FILE *file = fopen("/proc/self/cmdline", "r");
    char line[8192] = {0};
    size_t length = file == nullptr ? 0 : fread(line, 1, sizeof line - 1, file);
    if (file != nullptr) fclose(file);
    for (size_t i = 0; i < length; i++)
        if (line[i] == 0) line[i] = ' ';
    if (strstr(line, tested) != nullptr) return false;
    AK_FREE(global_block);
    return true;
}();

TEST(cxx_typed) {
    (void)global_given_back;
    Wide *wide = make_one<Wide>();
    CHECK(wide != nullptr && is_aligned(wide, 128) && wide->bytes[199] == 0);
    AK_FREE(wide);
    auto lambda = [](size_t n) noexcept { return AK_ARRAY(Wide, n); };
    Wide *arrays[8];
    for (Wide *&array : arrays) {
        array = lambda(9);
        CHECK(array != nullptr && is_aligned(array, 128));
    }
    for (Wide *&array : arrays) {
        array = AK_RESIZE(array, Wide, 90);
        CHECK(array != nullptr && is_aligned(array, 128));
    }
    for (Wide *&array : arrays) {
        AK_FREE(array);
        CHECK(array == nullptr);
    }
}

TEST(cxx_containers) {
    std::vector<std::basic_string<char, std::char_traits<char>, Allocator<char>>,
                Allocator<std::basic_string<char, std::char_traits<char>, Allocator<char>>>>
        strings;
    for (int i = 0; i < 3000; i++) strings.emplace_back(static_cast<size_t>(i % 400), static_cast<char>('a' + i % 26));
    for (size_t i = 0; i < strings.size(); i++) {
        CHECK(strings[i].size() == i % 400);
        for (char c : strings[i]) CHECK(c == static_cast<char>('a' + i % 26));
    }
    bool thrown = false;
    try {
        Allocator<Wide>().allocate(opaque_size(SIZE_MAX / 8));
    } catch (const std::bad_alloc &) {
        thrown = true;
    }
    CHECK(thrown);
    CHECK(ak_fault_count() == 0);
}
