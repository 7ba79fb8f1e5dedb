# One target per room: firn_NAME from src/NAME, linked to the rooms it may include and to nothing else.
# Tests lie beside the code (thing_test.cc) and form one binary per room. Fuzzers lie there too
# (thing_fuzz.cc), one binary each: libFuzzer's in the preset fuzz, elsewhere an ordinary test that replays
# fuzz/corpus/thing and a seeded stream of mutations of it.

find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)
find_package(GTest REQUIRED)
find_package(fmt REQUIRED)

add_library(firn_flags INTERFACE)
target_compile_options(firn_flags INTERFACE
  -Wall -Wextra -Wpedantic -Wconversion -Wshadow -Wswitch-enum -Wnon-virtual-dtor -Werror
  -Wno-missing-field-initializers  # Designated initializers name what differs from the default.
  # A waiting fiber's list node lives on its stack, and outlives its stay in the list (Io W2).
  $<$<CXX_COMPILER_ID:GNU>:-Wno-dangling-pointer>
  -fno-omit-frame-pointer)
if(CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
  # __extension__ statement expressions are the one extension the house uses (TRY).
  target_compile_options(firn_flags INTERFACE -Wno-gnu-statement-expression)
endif()
if(FIRN_DCHECK)
  target_compile_definitions(firn_flags INTERFACE FIRN_DCHECK)
endif()
if(FIRN_MUTANT)
  target_compile_definitions(firn_flags INTERFACE FIRN_MUTANT_${FIRN_MUTANT})
endif()
if(FIRN_FUZZ)
  # Coverage of the rooms guides the fuzzers.
  target_compile_options(firn_flags INTERFACE -fsanitize=fuzzer-no-link)
  target_link_options(firn_flags INTERFACE -fsanitize=fuzzer-no-link)
endif()
if(FIRN_SANITIZE)
  target_compile_options(firn_flags INTERFACE -fsanitize=${FIRN_SANITIZE})
  target_link_options(firn_flags INTERFACE -fsanitize=${FIRN_SANITIZE})
endif()
target_include_directories(firn_flags INTERFACE ${CMAKE_SOURCE_DIR}/src)

# firn_room(NAME ROOMS a b LIBRARIES x y TEST_ROOMS sim TEST_LIBRARIES z)
function(firn_room name)
  cmake_parse_arguments(ROOM "" "" "ROOMS;LIBRARIES;TEST_ROOMS;TEST_LIBRARIES" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/${name}/*.cc)
  set(sources_all ${sources})
  set(tests ${sources})
  list(FILTER sources EXCLUDE REGEX "_(test|fuzz|bench|main)\\.cc$")
  set(fuzzers ${sources_all})
  list(FILTER tests INCLUDE REGEX "_test\\.cc$")
  list(FILTER fuzzers INCLUDE REGEX "_fuzz\\.cc$")
  list(TRANSFORM ROOM_ROOMS PREPEND firn_)
  list(TRANSFORM ROOM_TEST_ROOMS PREPEND firn_)
  if(sources)
    add_library(firn_${name} STATIC ${sources})
    target_link_libraries(firn_${name} PUBLIC firn_flags fmt::fmt ${ROOM_ROOMS} ${ROOM_LIBRARIES})
  else()
    add_library(firn_${name} INTERFACE)
    target_link_libraries(firn_${name} INTERFACE firn_flags fmt::fmt ${ROOM_ROOMS} ${ROOM_LIBRARIES})
  endif()
  if(tests)
    add_executable(${name}_test ${tests})
    target_link_libraries(${name}_test PRIVATE firn_${name} ${ROOM_TEST_ROOMS} ${ROOM_TEST_LIBRARIES}
                          GTest::gtest GTest::gtest_main)
    include(GoogleTest)
    gtest_discover_tests(${name}_test DISCOVERY_MODE PRE_TEST TEST_PREFIX "${name}/"
                         PROPERTIES TIMEOUT 300)
  endif()
  foreach(file ${fuzzers})
    cmake_path(GET file STEM fuzzer)
    firn_fuzzer(${fuzzer} ${file} firn_${name} ${ROOM_TEST_ROOMS} ${ROOM_TEST_LIBRARIES})
  endforeach()
endfunction()

# firn_fuzzer(NAME_fuzz FILE LIBRARIES...)
add_custom_target(fuzzers)
function(firn_fuzzer target file)
  add_executable(${target} ${file})
  target_link_libraries(${target} PRIVATE firn_flags ${ARGN})
  add_dependencies(fuzzers ${target})
  if(FIRN_FUZZ)
    target_compile_options(${target} PRIVATE -fsanitize=fuzzer)
    target_link_options(${target} PRIVATE -fsanitize=fuzzer)
    return()
  endif()
  target_sources(${target} PRIVATE ${CMAKE_SOURCE_DIR}/fuzz/replay.cc)
  string(REGEX REPLACE "_fuzz$" "" corpus ${target})
  add_test(NAME fuzz/${corpus} COMMAND ${target} ${CMAKE_SOURCE_DIR}/fuzz/corpus/${corpus})
  set_tests_properties(fuzz/${corpus} PROPERTIES TIMEOUT 120 LABELS fuzz)
endfunction()
