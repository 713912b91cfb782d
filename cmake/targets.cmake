# What packaging/check runs under sanitizers, and so builds under them: the tests of tests/unit, contract and sim.
add_custom_target(sanitized_tests)
# What packaging/check --all runs under them besides: tests/model and crash, and the programs for tests/integration.
add_custom_target(sanitized_long_tests)

# cumulus_library(name SOURCES ... PUBLIC ... PRIVATE ...): one floor or room.
# cumulus_program(name SOURCES ... LIBS ...): one executable in build/<preset>/bin.
# cumulus_test(name SOURCES ... LIBS ... [LABELS ...] [TIMEOUT seconds] [ARGS ...]): one GoogleTest program, one ctest entry.
function(cumulus_library name)
  cmake_parse_arguments(A "" "" "SOURCES;PUBLIC;PRIVATE" ${ARGN})
  add_library(${name} STATIC ${A_SOURCES})
  target_link_libraries(${name} PUBLIC cumulus_settings ${A_PUBLIC} PRIVATE ${A_PRIVATE})
endfunction()

function(cumulus_program name)
  cmake_parse_arguments(A "" "" "SOURCES;LIBS" ${ARGN})
  add_executable(${name} ${A_SOURCES})
  target_link_libraries(${name} PRIVATE cumulus_settings ${A_LIBS})
endfunction()

function(cumulus_test name)
  cmake_parse_arguments(A "" "TIMEOUT" "SOURCES;LIBS;LABELS;ARGS" ${ARGN})
  add_executable(${name} ${A_SOURCES})
  target_link_libraries(${name} PRIVATE cumulus_settings ${A_LIBS} GTest::gtest GTest::gtest_main)
  if(CUMULUS_SANITIZE MATCHES thread)
    # GoogleTest and RocksDB share instances of std::unordered_set<std::string>: RocksDB, which the sanitizer overlooks, would run
    # the copies of Debian's libgtest.a in this program, which it watches.
    target_link_options(${name} PRIVATE LINKER:--exclude-libs,libgtest.a)
  endif()
  add_test(NAME ${name} COMMAND ${name} ${A_ARGS})
  if(NOT A_TIMEOUT)
    set(A_TIMEOUT 300)
  endif()
  # The folder is the kind of proof: ctest -L unit, contract, crash, sim, integration.
  get_filename_component(kind ${CMAKE_CURRENT_SOURCE_DIR} NAME)
  set_tests_properties(${name} PROPERTIES TIMEOUT ${A_TIMEOUT} LABELS "${kind};${A_LABELS}")
  if(kind MATCHES "^(unit|contract|sim)$")
    add_dependencies(sanitized_tests ${name})
  elseif(kind MATCHES "^(model|crash)$")
    add_dependencies(sanitized_long_tests ${name})
  endif()
endfunction()

# A simulated kill -9 leaves its process's suspended coroutines behind, as the real one does: they are no leaks of ours.
# The same code ends properly, under the leak checker, in every test of a real process.
function(cumulus_kills_simulated_processes name)
  set_tests_properties(${name} PROPERTIES ENVIRONMENT "ASAN_OPTIONS=detect_leaks=0")
endfunction()
