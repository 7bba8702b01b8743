// vex.cc - vex.c as C++.
#include "vex.c"
