# The programs of every CMake consumer: app from C and from C++, a plugin, and their tests. The includer has a target
# Allokit::alloc; EXPECT_BACKEND and EXPECT_TRACK (on or off) say what the programs must find.
set(here "${CMAKE_CURRENT_LIST_DIR}")
find_package(Threads REQUIRED)
enable_testing()
add_compile_options(-Wall -Wextra -Wpedantic -Werror)

add_executable(app "${here}/app.c")
target_link_libraries(app PRIVATE Allokit::alloc Threads::Threads)
add_executable(app_cxx "${here}/app.cc")
target_link_libraries(app_cxx PRIVATE Allokit::alloc Threads::Threads)
set_target_properties(app app_cxx PROPERTIES C_STANDARD 99 CXX_STANDARD 11 C_EXTENSIONS ON)
foreach(program app app_cxx)
  add_test(NAME ${program} COMMAND ${program} ${EXPECT_BACKEND} ${EXPECT_TRACK})
endforeach()
# The check itself: it must be able to fail.
add_test(NAME app_expects_another COMMAND app other ${EXPECT_TRACK})
set_tests_properties(app_expects_another PROPERTIES WILL_FAIL ON)

add_library(plugin MODULE "${here}/../two_objects/part.c")
target_link_libraries(plugin PRIVATE Allokit::alloc)
target_compile_definitions(plugin PRIVATE PART=plugin)
