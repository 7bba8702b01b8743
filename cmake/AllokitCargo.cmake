# Builds the libraries from source: a target for each backend that runs `cargo xtask lib`, at each build, since cargo
# knows best what has changed; a library that comes out the same is not written again, so nothing is linked anew. A
# backend that no program links is not built.
#
#   ALLOKIT_CARGO             cargo, when it is not in PATH
#   ALLOKIT_RUST_TARGET       the Rust target of a cross build; found out for Linux on x86_64 and aarch64
#   ALLOKIT_CARGO_TARGET_DIR  cargo's target folder [target in Allokit's sources]

if(NOT CMAKE_SYSTEM_NAME STREQUAL "Linux")
  allokit_fail("building from source works for Linux in this version, not for ${CMAKE_SYSTEM_NAME}")
endif()

# ---- Rust ------------------------------------------------------------------------------------------------------------

set(allokit_rust_advice "install Rust from https://rustup.rs (then open a new shell), or use an installed Allokit by find_package")
set(allokit_hints "$ENV{HOME}/.cargo/bin")
if(DEFINED ENV{CARGO_HOME})
  set(allokit_hints "$ENV{CARGO_HOME}/bin")
endif()
find_program(ALLOKIT_CARGO cargo HINTS "${allokit_hints}" DOC "Rust's cargo")
mark_as_advanced(ALLOKIT_CARGO)
if(NOT ALLOKIT_CARGO)
  allokit_fail("cargo was not found; ${allokit_rust_advice}")
endif()
execute_process(COMMAND "${ALLOKIT_CARGO}" --version WORKING_DIRECTORY "${Allokit_SOURCE_DIR}"
                OUTPUT_VARIABLE allokit_cargo_version ERROR_VARIABLE allokit_cargo_error RESULT_VARIABLE allokit_cargo_result)
if(NOT allokit_cargo_result EQUAL 0)
  string(REGEX REPLACE "[ \n]+" " " allokit_cargo_error "${allokit_cargo_error}")
  allokit_fail("${ALLOKIT_CARGO} does not run (${allokit_cargo_result}: ${allokit_cargo_error}); ${allokit_rust_advice}")
endif()
string(REGEX REPLACE "^cargo ([0-9.]+).*" "\\1" allokit_cargo_version "${allokit_cargo_version}")
file(STRINGS "${Allokit_SOURCE_DIR}/crates/xtask/Cargo.toml" allokit_rust_version REGEX "^rust-version = " LIMIT_COUNT 1)
string(REGEX REPLACE "^rust-version = \"(.*)\"$" "\\1" allokit_rust_version "${allokit_rust_version}")
if(allokit_cargo_version VERSION_LESS allokit_rust_version)
  allokit_fail("Rust ${allokit_rust_version} or later is needed, and ${ALLOKIT_CARGO} is ${allokit_cargo_version}; run: rustup update")
endif()

# ---- a cross build -----------------------------------------------------------------------------------------------------

set(ALLOKIT_CARGO_TARGET_DIR "" CACHE PATH "cargo's target folder [target in Allokit's sources]")
set(allokit_rust_target "")
if(CMAKE_CROSSCOMPILING)
  if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(aarch64|arm64)$")
    set(allokit_rust_target aarch64-unknown-linux-gnu)
  elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64)$")
    set(allokit_rust_target x86_64-unknown-linux-gnu)
  endif()
endif()
set(ALLOKIT_RUST_TARGET "${allokit_rust_target}" CACHE STRING "The Rust target of a cross build; empty: this machine's")
mark_as_advanced(ALLOKIT_CARGO_TARGET_DIR ALLOKIT_RUST_TARGET)
if(CMAKE_CROSSCOMPILING AND NOT ALLOKIT_RUST_TARGET)
  allokit_fail("give ALLOKIT_RUST_TARGET, the Rust target for ${CMAKE_SYSTEM_PROCESSOR} (rustc --print target-list)")
endif()

set(allokit_environment "${CMAKE_COMMAND}" -E env)
if(ALLOKIT_CARGO_TARGET_DIR)
  list(APPEND allokit_environment "CARGO_TARGET_DIR=${ALLOKIT_CARGO_TARGET_DIR}")
endif()
set(allokit_arguments "")
if(ALLOKIT_RUST_TARGET)
  list(APPEND allokit_arguments --target "${ALLOKIT_RUST_TARGET}")
  string(REPLACE "-" "_" allokit_lower "${ALLOKIT_RUST_TARGET}")
  string(TOUPPER "${allokit_lower}" allokit_upper)
  if(CMAKE_CROSSCOMPILING)
    list(APPEND allokit_environment "CC_${allokit_lower}=${CMAKE_C_COMPILER}" "CARGO_TARGET_${allokit_upper}_LINKER=${CMAKE_C_COMPILER}")
  endif()
endif()
set(allokit_folder "lib")
if(DEFINED ALLOKIT_TRACK AND NOT ALLOKIT_TRACK STREQUAL "" AND NOT ALLOKIT_TRACK)
  list(APPEND allokit_arguments --track off)
  set(allokit_folder "lib-notrack")
endif()
if(DEFINED ALLOKIT_GUARD AND ALLOKIT_GUARD)
  list(APPEND allokit_arguments --guard on)
  set(allokit_folder "lib-guard")
endif()

# ---- the libraries -----------------------------------------------------------------------------------------------------

foreach(allokit_backend IN LISTS ALLOKIT_BACKENDS)
  set(allokit_out "${Allokit_BINARY_DIR}/${allokit_folder}")
  set(allokit_static "${allokit_out}/liballokit_${allokit_backend}.a")
  set(allokit_shared "${allokit_out}/liballokit_${allokit_backend}.so")
  set(allokit_soname "liballokit_${allokit_backend}.so.${Allokit_VERSION_MAJOR}")
  add_custom_target(allokit_build_${allokit_backend}
    COMMAND ${allokit_environment} "${ALLOKIT_CARGO}" xtask lib --quiet --no-preload --backend ${allokit_backend} --out "${allokit_out}" ${allokit_arguments}
    BYPRODUCTS "${allokit_static}" "${allokit_shared}" "${allokit_out}/${allokit_soname}"
               "${allokit_out}/liballokit_${allokit_backend}.so.${Allokit_VERSION}"
    WORKING_DIRECTORY "${Allokit_SOURCE_DIR}"
    COMMENT "Allokit: cargo sees to liballokit_${allokit_backend}"
    VERBATIM)
  allokit_add_target(${allokit_backend} "${Allokit_SOURCE_DIR}/include" "${allokit_static}" "${allokit_shared}" "${allokit_soname}")
  add_dependencies(Allokit::${allokit_backend} allokit_build_${allokit_backend})
endforeach()
allokit_choose(${ALLOKIT_BACKEND})

# `cmake --install` of Allokit itself installs the chosen backend; `cargo xtask install` installs all, and the command.
if(allokit_top_level)
  set(allokit_install_command ${allokit_environment} "${ALLOKIT_CARGO}" xtask install --no-command --backend ${ALLOKIT_BACKEND} ${allokit_arguments})
  string(REPLACE ";" "\" \"" allokit_install_command "${allokit_install_command}")
  install(CODE "
    set(destdir \"\")
    if(NOT \"\$ENV{DESTDIR}\" STREQUAL \"\")
      set(destdir --destdir \"\$ENV{DESTDIR}\")
    endif()
    execute_process(COMMAND \"${allokit_install_command}\" --prefix \"\${CMAKE_INSTALL_PREFIX}\" \${destdir}
                    WORKING_DIRECTORY \"${Allokit_SOURCE_DIR}\" RESULT_VARIABLE result)
    if(NOT result EQUAL 0)
      message(FATAL_ERROR \" Allokit: the installation failed, see above\")
    endif()")
endif()
