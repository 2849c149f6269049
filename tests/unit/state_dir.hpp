// A state directory of its own for one test, gone with it.
//
// copied() is what a killed process leaves behind: RocksDB hands every logged write to the kernel at once, so the files
// as they stand while the database is open are those that a restart would find.
#pragma once

#include <stdlib.h>

#include <filesystem>
#include <string>
#include <system_error>

namespace walferry::test {

class StateDir {
 public:
  StateDir() {
    std::string pattern = (std::filesystem::temp_directory_path() / "walferry-unit-XXXXXX").string();
    if (mkdtemp(pattern.data()) == nullptr) throw std::filesystem::filesystem_error("mkdtemp", pattern, {});
    parent_ = pattern;
  }
  StateDir(StateDir&& other) noexcept : parent_(std::move(other.parent_)) { other.parent_.clear(); }
  StateDir& operator=(StateDir&&) = delete;
  ~StateDir() {
    std::error_code ignored;  // a leftover in the temporary directory harms no test
    if (!parent_.empty()) std::filesystem::remove_all(parent_, ignored);
  }

  // Does not exist before a database is opened there.
  [[nodiscard]] std::filesystem::path path() const { return parent_ / "state"; }

  [[nodiscard]] StateDir copied() const {
    StateDir other;
    std::filesystem::copy(path(), other.path(), std::filesystem::copy_options::recursive);
    return other;
  }

 private:
  std::filesystem::path parent_;
};

}  // namespace walferry::test
