# Language, warnings, sanitizers, linker and compiler cache: settled once for all targets.
set(CMAKE_CXX_STANDARD 23)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
# Assertions on data paths stay on in release builds (objectstore/base/check.h never looks at NDEBUG).
set(CMAKE_CXX_FLAGS_RELWITHDEBINFO "-O2 -g1")

set(CUMULUS_SANITIZE "" CACHE STRING "sanitizers for the whole build, e.g. address,undefined")
option(CUMULUS_FUZZ "build the libFuzzer targets of tests/fuzz" OFF)

add_library(cumulus_settings INTERFACE)
target_include_directories(cumulus_settings INTERFACE ${PROJECT_SOURCE_DIR})
target_compile_options(cumulus_settings INTERFACE
  -Wall -Wextra -Werror -Wshadow -Wnon-virtual-dtor -Woverloaded-virtual -Wimplicit-fallthrough
  -Wno-missing-field-initializers)  # designated initialisers leave the rest at its default on purpose
if(CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
  target_compile_options(cumulus_settings INTERFACE -Wthread-safety -Wno-unused-private-field)
else()
  # GCC 12 reports these falsely inside coroutine frames and inlined library code.
  target_compile_options(cumulus_settings INTERFACE
    -fcoroutines -Wno-maybe-uninitialized -Wno-stringop-overflow -Wno-array-bounds -Wno-restrict -Wno-dangling-pointer
    -Wno-mismatched-new-delete -Wno-stringop-overread -Wno-use-after-free)
endif()
if(CUMULUS_FUZZ)
  target_compile_options(cumulus_settings INTERFACE -fsanitize=fuzzer-no-link)  # so that libFuzzer sees every room
endif()
if(CUMULUS_SANITIZE)
  target_compile_options(cumulus_settings INTERFACE -fsanitize=${CUMULUS_SANITIZE} -fno-omit-frame-pointer
    -fno-sanitize-recover=all)
  target_link_options(cumulus_settings INTERFACE -fsanitize=${CUMULUS_SANITIZE})
endif()

find_program(CUMULUS_CCACHE ccache)
if(CUMULUS_CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER
    ${CMAKE_COMMAND} -E env CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime
    CCACHE_NOHASHDIR=1 CCACHE_BASEDIR=${PROJECT_SOURCE_DIR} ${CUMULUS_CCACHE})
endif()
find_program(CUMULUS_MOLD mold)
if(CUMULUS_MOLD)
  target_link_options(cumulus_settings INTERFACE -fuse-ld=mold)
endif()
