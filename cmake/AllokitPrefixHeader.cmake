# allokit_prefix_header(PREFIX vex OUTPUT <file>): writes a header in which the public names of alloc.h carry a runtime's
# own prefix: vex_alloc, vex_free, vex_stats_t, VEX_NEW, VEX_JSON. The names are read from alloc.h itself, and from
# allokit/heap.h and allokit/arena.h, which it includes.
#
# Functions and macros become macros without arguments: a call vex_alloc(n) reports its own line under AK_TRACK, and
# &vex_free is a function pointer. Types become typedefs (by their _t and _fn names; struct tags keep theirs).
# VEX_TRACK defined before the header is AK_TRACK. The program links Allokit::alloc as ever.
# CMake 3.16 or later; also without the rest of the package, by cmake -P.

# From a source tree, or from <prefix>/lib/cmake/Allokit.
foreach(allokit_folder ../include ../../../include)
  if(EXISTS "${CMAKE_CURRENT_LIST_DIR}/${allokit_folder}/alloc.h")
    get_filename_component(allokit_folder "${CMAKE_CURRENT_LIST_DIR}/${allokit_folder}" ABSOLUTE)
    set_property(GLOBAL PROPERTY ALLOKIT_INCLUDE_DIR "${allokit_folder}")
    break()
  endif()
endforeach()
unset(allokit_folder)

function(allokit_prefix_header)
  cmake_parse_arguments(PARSE_ARGV 0 arg "" "PREFIX;OUTPUT" "")
  if(NOT DEFINED arg_PREFIX OR NOT DEFINED arg_OUTPUT OR DEFINED arg_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR " Allokit: usage: allokit_prefix_header(PREFIX <name> OUTPUT <file>)")
  endif()
  if(NOT arg_PREFIX MATCHES "^[A-Za-z][A-Za-z0-9]*(_[A-Za-z0-9]+)*$")
    message(FATAL_ERROR " Allokit: PREFIX ${arg_PREFIX} cannot begin a name in C; valid: letters, digits and single _ between them, as in vex")
  endif()
  string(TOLOWER "${arg_PREFIX}" lower)
  string(TOUPPER "${arg_PREFIX}" upper)
  if(lower STREQUAL "ak")
    message(FATAL_ERROR " Allokit: PREFIX ak is Allokit's own; choose another one")
  endif()
  get_filename_component(output "${arg_OUTPUT}" ABSOLUTE BASE_DIR "${CMAKE_CURRENT_BINARY_DIR}")

  get_property(include_dir GLOBAL PROPERTY ALLOKIT_INCLUDE_DIR)
  set(text "")
  foreach(part alloc.h allokit/heap.h allokit/arena.h)
    file(READ "${include_dir}/${part}" more)
    string(APPEND text "${more}")
    if(NOT CMAKE_SCRIPT_MODE_FILE)
      set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS "${include_dir}/${part}")
    endif()
  endforeach()
  # Comments, and what CMake would take for a list.
  string(REGEX REPLACE "/[*]([^*]|[*]+[^*/])*[*]+/" " " text "${text}")
  string(REGEX REPLACE "[][;\\]" " " text "${text}")

  # Names that end with _ are alloc.h's own; AK_API and AK_TRACK are for its user to define.
  string(REGEX MATCHALL "[A-Za-z_][A-Za-z0-9_]*" names "${text}")
  list(REMOVE_DUPLICATES names)
  list(SORT names)
  set(types "${names}")
  list(FILTER types INCLUDE REGEX "^ak_[a-z0-9_]*_(t|fn)$")
  set(macros "${names}")
  list(FILTER macros INCLUDE REGEX "^AK_[A-Z0-9_]*[A-Z0-9]$")
  list(REMOVE_ITEM macros AK_API AK_TRACK)
  string(REGEX MATCHALL "ak_[a-z0-9_]*[a-z0-9] *[(]" functions "${text}")
  list(TRANSFORM functions REPLACE " *[(]" "")
  list(REMOVE_DUPLICATES functions)
  list(SORT functions)

  set(lines "")
  foreach(name IN LISTS types)
    string(REGEX REPLACE "^ak_" "${lower}_" own "${name}")
    string(APPEND lines "typedef ${name} ${own};\n")
  endforeach()
  string(APPEND lines "\n")
  foreach(name IN LISTS functions)
    string(REGEX REPLACE "^ak_" "${lower}_" own "${name}")
    string(APPEND lines "#define ${own} ${name}\n")
  endforeach()
  string(APPEND lines "\n")
  foreach(name IN LISTS macros)
    string(REGEX REPLACE "^AK_" "${upper}_" own "${name}")
    string(APPEND lines "#define ${own} ${name}\n")
  endforeach()

  get_filename_component(file_name "${output}" NAME)
  string(CONCAT header
    "/*\n"
    " * ${file_name} - alloc.h under the prefix ${lower}_. Written by allokit_prefix_header: changes here are lost.\n"
    " * What each name does is said in alloc.h.\n"
    " */\n"
    "#ifndef ${upper}_ALLOKIT_PREFIX_H\n"
    "#define ${upper}_ALLOKIT_PREFIX_H\n"
    "\n"
    "#if defined(${upper}_TRACK) && !defined(AK_TRACK)\n"
    "#define AK_TRACK 1\n"
    "#endif\n"
    "#include <alloc.h>\n"
    "\n"
    "${lines}"
    "\n"
    "#endif /* ${upper}_ALLOKIT_PREFIX_H */\n")
  # Written only when it changes, so that nothing is compiled anew.
  set(old "")
  if(EXISTS "${output}")
    file(READ "${output}" old)
  endif()
  if(NOT header STREQUAL old)
    file(WRITE "${output}" "${header}")
  endif()
endfunction()
