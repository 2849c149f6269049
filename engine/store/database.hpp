// The one RocksDB database of a migration, under --state-dir, and its three column families.
//
//   state    the journal: small values, every write synced            (Journal)
//   blocks   the spool's blocks of raw messages, in stream order       (Spool)
//   streams  chunks of streamed in-progress transactions, by stream    (Spool); not logged: the source sends them again
//
// Owns the directory's lock: a second walferry on the same state directory is refused. Thread-safe, as RocksDB is.
#pragma once

#include <rocksdb/db.h>

#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/error.hpp"

namespace walferry::store {

enum class Access { ReadWrite, ReadOnly };

class Database {
 public:
  // Creates the directory (mode 0700) when it is absent and access is ReadWrite. Throws Error{State} with the remedy.
  [[nodiscard]] static Database open(const std::filesystem::path& directory, Access access);

  enum class Family { State, Blocks, Streams };
  enum class Durability { Synced, Logged, Unlogged };

  [[nodiscard]] std::optional<std::string> get(Family family, std::string_view key) const;
  void put(Family family, std::string_view key, std::string_view value, Durability durability);
  void erase(Family family, std::string_view key, Durability durability);
  // Removes the keys of [begin, end) and gives whole files back at once.
  void erase_range(Family family, std::string_view begin, std::string_view end);
  // Every (key, value) whose key starts with `prefix`, in key order.
  [[nodiscard]] std::vector<std::pair<std::string, std::string>> scan(Family family, std::string_view prefix) const;
  // Calls `visit(key, value)` for every pair in key order; the views live until it returns.
  void for_each(Family family, const std::function<void(std::string_view, std::string_view)>& visit) const;

  // Makes every logged write durable.
  void sync_log();
  // Makes the unlogged writes of `family` durable.
  void flush(Family family);

  [[nodiscard]] const std::filesystem::path& directory() const { return directory_; }
  // Whether a database of this process could not be closed: its threads go on, so that the process must end without
  // taking static objects from under them.
  [[nodiscard]] static bool any_left_open();

 private:
  // After a write that failed RocksDB can bear neither another one nor to be closed: it would end the process before
  // the error is told. It is left as it is, and the next start reads what is on disk.
  struct Failure {
    std::mutex mutex;
    std::optional<Error> first;
  };
  struct Close {
    void operator()(rocksdb::DB* database) const;
    std::shared_ptr<Failure> failure;
  };

  // Runs `work`, or throws again what an earlier one failed of.
  void write(std::string_view doing, const std::function<rocksdb::Status()>& work);

  Database(std::filesystem::path directory, std::unique_ptr<rocksdb::DB, Close> database,
           std::vector<rocksdb::ColumnFamilyHandle*> families);
  [[nodiscard]] rocksdb::ColumnFamilyHandle* handle(Family family) const;

  struct Handles {
    rocksdb::DB* database = nullptr;
    std::vector<rocksdb::ColumnFamilyHandle*> list;
    Handles() = default;
    Handles(Handles&& other) noexcept : database(other.database), list(std::move(other.list)) { other.list.clear(); }
    Handles& operator=(Handles&&) = delete;
    ~Handles();
  };

  std::filesystem::path directory_;
  std::shared_ptr<Failure> failure_;
  std::unique_ptr<rocksdb::DB, Close> database_;
  Handles families_;  // destroyed before the database
};

}  // namespace walferry::store
