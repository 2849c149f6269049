// What every fuzz target is begun with: checks one input under a limit for what a single allocation may take.
//
// A length in an input must never decide how much is allocated before it was checked against what is there. libFuzzer's
// own -malloc_limit_mb counts in MiB only; this knows how large the input is, and holds for the replay as well.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <new>

#include "tests/fuzz/check.hpp"

namespace {

// A token of one character is one of 56 bytes, and a vector grows by twice what it holds.
constexpr std::size_t bytes_per_input_byte_max = 128;
constexpr std::size_t fixed_bytes_max = std::size_t{32} << 10U;  // a JSON parser begins with its stack

std::size_t allocation_bytes_max = std::numeric_limits<std::size_t>::max();

void* allocate(std::size_t size) noexcept {
  if (size > allocation_bytes_max) {
    std::fprintf(stderr, "one allocation of %zu bytes, where the input's size allows %zu\n", size,
                 allocation_bytes_max);
    std::abort();
  }
  return std::malloc(size == 0 ? 1 : size);
}

void* allocate_or_throw(std::size_t size) {
  void* memory = allocate(size);
  if (memory == nullptr) throw std::bad_alloc{};
  return memory;
}

}  // namespace

void* operator new(std::size_t size) {
  return allocate_or_throw(size);
}
void* operator new[](std::size_t size) {
  return allocate_or_throw(size);
}
void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
  return allocate(size);
}
void* operator new[](std::size_t size, const std::nothrow_t&) noexcept {
  return allocate(size);
}
void operator delete(void* memory) noexcept {
  std::free(memory);
}
void operator delete[](void* memory) noexcept {
  std::free(memory);
}
void operator delete(void* memory, std::size_t) noexcept {
  std::free(memory);
}
void operator delete[](void* memory, std::size_t) noexcept {
  std::free(memory);
}
void operator delete(void* memory, const std::nothrow_t&) noexcept {
  std::free(memory);
}
void operator delete[](void* memory, const std::nothrow_t&) noexcept {
  std::free(memory);
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  allocation_bytes_max = fixed_bytes_max + bytes_per_input_byte_max * size;
  walferry::test::check_input(std::as_bytes(std::span(data, size)));
  allocation_bytes_max = std::numeric_limits<std::size_t>::max();
  return 0;
}
