// What the programs of the bench have in common.
#pragma once

#include <functional>
#include <iostream>
#include <string_view>

namespace walferry {

// The exit code of `run`; 1, and the reason on stderr, when it throws.
inline int run_program(std::string_view name, const std::function<int()>& run) {
  try {
    return run();
  } catch (const std::exception& error) {
    std::cerr << name << ": " << error.what() << '\n';
    return 1;
  }
}

}  // namespace walferry
