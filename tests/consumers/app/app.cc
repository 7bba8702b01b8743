// app.cc - app.c as C++.
#include "app.c"
