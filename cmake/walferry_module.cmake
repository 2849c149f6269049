# One target per module. Warnings come from one interface target; headers sit in a FILE_SET, so that the target
# all_verify_interface_header_sets proves that each of them compiles alone.

add_library(walferry_warnings INTERFACE)
target_compile_options(walferry_warnings INTERFACE
  -Wall -Wextra -Wpedantic -Wconversion -Wsign-conversion -Wshadow -Wold-style-cast -Wnull-dereference
  -Wswitch-enum -Wnon-virtual-dtor -Woverloaded-virtual)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # False alarms of GCC 12 inside its own library and in optimised coroutine frames.
  target_compile_options(walferry_warnings INTERFACE
    -Wno-restrict -Wno-array-bounds -Wno-stringop-overflow -Wno-null-dereference -Wno-maybe-uninitialized
    -Wno-mismatched-new-delete)
endif()

function(walferry_module name)
  cmake_parse_arguments(ARG "" "" "SOURCES;HEADERS;LINK" ${ARGN})
  add_library(walferry_${name} STATIC ${ARG_SOURCES})
  add_library(walferry::${name} ALIAS walferry_${name})
  target_sources(walferry_${name} PUBLIC
    FILE_SET HEADERS BASE_DIRS ${PROJECT_SOURCE_DIR} FILES ${ARG_HEADERS})
  target_link_libraries(walferry_${name} PUBLIC ${ARG_LINK} PRIVATE walferry_warnings)
endfunction()
