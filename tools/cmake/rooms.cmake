# One target per room: firn_NAME from src/NAME, linked to the rooms it may include and to nothing else.
# Tests lie beside the code (thing_test.cc) and form one binary per room.

find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)
find_package(GTest REQUIRED)
find_package(fmt REQUIRED)

add_library(firn_flags INTERFACE)
target_compile_options(firn_flags INTERFACE
  -Wall -Wextra -Wpedantic -Wconversion -Wshadow -Wswitch-enum -Wnon-virtual-dtor -Werror
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
if(FIRN_SANITIZE)
  target_compile_options(firn_flags INTERFACE -fsanitize=${FIRN_SANITIZE})
  target_link_options(firn_flags INTERFACE -fsanitize=${FIRN_SANITIZE})
endif()
target_include_directories(firn_flags INTERFACE ${CMAKE_SOURCE_DIR}/src)

# firn_room(NAME ROOMS a b LIBRARIES x y TEST_ROOMS sim TEST_LIBRARIES z)
function(firn_room name)
  cmake_parse_arguments(ROOM "" "" "ROOMS;LIBRARIES;TEST_ROOMS;TEST_LIBRARIES" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/${name}/*.cc)
  set(tests ${sources})
  list(FILTER sources EXCLUDE REGEX "_(test|fuzz|bench|main)\\.cc$")
  list(FILTER tests INCLUDE REGEX "_test\\.cc$")
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
endfunction()
