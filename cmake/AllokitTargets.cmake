# The options and the targets, alike for a build from source and for the installed package.
#
#   ALLOKIT_BACKEND    native (default), mimalloc, jemalloc or system: what Allokit::alloc is
#   ALLOKIT_TRACK      not set: the library holds tracking, off until asked for (ALLOKIT_TRACK=sites in the environment);
#                      ON: programs also pass file and line of each call (AK_TRACK is defined for them);
#                      OFF: the library is built without tracking; an installed one is as it was installed
#   ALLOKIT_GUARD      ON: the library guards its heap; an installed one is as it was installed (cargo xtask install --guard on)
#   BUILD_SHARED_LIBS  ON: the targets are shared libraries; otherwise static ones
#
# Programs that link the static native library have its fast path in the caller; -DAK_NO_INLINE undoes that.
#
# Targets: Allokit::alloc, and Allokit::native, Allokit::mimalloc, Allokit::jemalloc, Allokit::system.
# CMake 3.16 or later.

set(ALLOKIT_BACKENDS native mimalloc jemalloc system)

# Ends the configuration. The line begins with a space: then CMake prints it as it is, instead of folding it.
function(allokit_fail text)
  message(FATAL_ERROR " Allokit: ${text}")
endfunction()

# allokit_option(<name> <type> <default> <text>): a cache entry, unless the including project has set a variable of the
# name (which set(CACHE) would remove before CMake 3.21).
macro(allokit_option name type default text)
  if(NOT DEFINED ${name} OR DEFINED CACHE{${name}})
    set(${name} "${default}" CACHE ${type} "${text}")
  endif()
endmacro()

# Declares the options and checks their values.
macro(allokit_options)
  allokit_option(ALLOKIT_BACKEND STRING "native" "What Allokit::alloc is: native, mimalloc, jemalloc or system")
  if(DEFINED CACHE{ALLOKIT_BACKEND})
    set_property(CACHE ALLOKIT_BACKEND PROPERTY STRINGS ${ALLOKIT_BACKENDS})
  endif()
  allokit_option(ALLOKIT_TRACK STRING ""
    "Empty: the library holds tracking; ON: programs also pass file and line (AK_TRACK); OFF: built without tracking")
  allokit_option(ALLOKIT_GUARD BOOL OFF "ON: the library is built with the guarded heap")
  allokit_check_options()
endmacro()

# Refuses what the options cannot be, in one line each.
function(allokit_check_options)
  if(DEFINED ALLOKIT_BACKEND AND NOT "${ALLOKIT_BACKEND}" IN_LIST ALLOKIT_BACKENDS)
    string(REPLACE ";" ", " valid "${ALLOKIT_BACKENDS}")
    allokit_fail("ALLOKIT_BACKEND=${ALLOKIT_BACKEND} is not known; valid: ${valid}")
  endif()
  if(DEFINED ALLOKIT_TRACK)
    string(TOUPPER "${ALLOKIT_TRACK}" value)
    if(NOT value MATCHES "^(ON|YES|TRUE|Y|1|OFF|NO|FALSE|N|0|)$")
      allokit_fail("ALLOKIT_TRACK=${ALLOKIT_TRACK} is not known; valid: ON, OFF, or not set")
    endif()
  endif()
  if(DEFINED ALLOKIT_GUARD AND ALLOKIT_GUARD AND DEFINED ALLOKIT_TRACK AND NOT ALLOKIT_TRACK STREQUAL "" AND NOT ALLOKIT_TRACK)
    allokit_fail("ALLOKIT_GUARD=${ALLOKIT_GUARD} needs tracking, and ALLOKIT_TRACK is ${ALLOKIT_TRACK}; valid: ALLOKIT_TRACK=ON, or not set")
  endif()
endfunction()

# allokit_add_target(<backend> <include folder> <static library> <shared library> <soname>): Allokit::<backend>.
function(allokit_add_target backend include_dir static_library shared_library soname)
  set(target Allokit::${backend})
  if(DEFINED BUILD_SHARED_LIBS AND BUILD_SHARED_LIBS)
    add_library(${target} SHARED IMPORTED GLOBAL)
    set_target_properties(${target} PROPERTIES IMPORTED_LOCATION "${shared_library}" IMPORTED_SONAME "${soname}")
  else()
    add_library(${target} STATIC IMPORTED GLOBAL)
    # Before glibc 2.34 threads and dlsym were libraries of their own; since then these two are empty. A plugin that holds
    # the library must stay loaded: threads run its code when they end.
    set_target_properties(${target} PROPERTIES
      IMPORTED_LOCATION "${static_library}"
      INTERFACE_LINK_LIBRARIES "-lpthread;-ldl"
      INTERFACE_LINK_OPTIONS "$<$<STREQUAL:$<TARGET_PROPERTY:TYPE>,MODULE_LIBRARY>:-Wl,-z,nodelete>;$<$<STREQUAL:$<TARGET_PROPERTY:TYPE>,SHARED_LIBRARY>:-Wl,-z,nodelete>")
  endif()
  set_target_properties(${target} PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${include_dir}")
  if(DEFINED ALLOKIT_TRACK AND ALLOKIT_TRACK)
    set_target_properties(${target} PROPERTIES INTERFACE_COMPILE_DEFINITIONS AK_TRACK)
  elseif(backend STREQUAL "native" AND NOT (DEFINED BUILD_SHARED_LIBS AND BUILD_SHARED_LIBS)
         AND CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64|aarch64|arm64)$")
    # The fast path in the caller; AK_NO_INLINE undoes it (include/allokit/inline.h).
    set_target_properties(${target} PROPERTIES INTERFACE_COMPILE_DEFINITIONS AK_INLINE_NATIVE)
  endif()
endfunction()

# allokit_choose(<backend>): Allokit::alloc.
function(allokit_choose backend)
  add_library(Allokit::alloc INTERFACE IMPORTED GLOBAL)
  set_target_properties(Allokit::alloc PROPERTIES INTERFACE_LINK_LIBRARIES Allokit::${backend})
endfunction()
