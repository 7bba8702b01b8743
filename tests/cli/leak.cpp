// leak.cpp - what the cases of the command `allokit` run: 100 blocks that stay, 104950 bytes, allocated at line 16. Usage:
// leak | leak status N | leak more N (N blocks of 500 bytes at line 20) | leak abort | leak sleep (until SIGTERM, then
// exit status 9) | leak slow
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <unistd.h>

namespace store {
struct Shelf {
    void *kept[200];
    int count;

    void grow(int bytes) {
        kept[count++] = std::malloc(bytes);
    }

    void more(int) {
        kept[count++] = std::malloc(500);
    }
};
}

static store::Shelf shelf;
static volatile sig_atomic_t told;
static void tell(int) { told = 1; }

int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "";
    int number = argc > 2 ? std::atoi(argv[2]) : 0;
    for (int i = 0; i < 100; i++) {
        shelf.grow(1000 + i);
        if (std::strcmp(what, "slow") == 0) usleep(1000);
    }
    if (std::strcmp(what, "more") == 0)
        for (int i = 0; i < number; i++) shelf.more(i);
    if (std::strcmp(what, "abort") == 0) std::abort();
    if (std::strcmp(what, "sleep") == 0) {
        std::signal(SIGTERM, tell);
        std::puts("yes");
        std::fflush(stdout);
        while (!told) usleep(1000);
        return 9;
    }
    std::puts("the program's own words");
    return std::strcmp(what, "status") == 0 ? number : 0;
}
