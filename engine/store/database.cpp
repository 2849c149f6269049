#include "engine/store/database.hpp"

#include <fmt/format.h>
#include <rocksdb/convenience.h>
#include <rocksdb/env.h>
#include <rocksdb/options.h>
#include <rocksdb/table.h>

#include <algorithm>
#include <atomic>
#include <system_error>

namespace walferry::store {
namespace {

namespace fs = std::filesystem;

std::atomic_bool left_open = false;

rocksdb::Slice slice(std::string_view text) {
  return {text.data(), text.size()};
}

void check(const rocksdb::Status& status, const fs::path& directory, std::string_view doing) {
  if (status.ok()) return;
  std::string remedy = "check disk space and permissions of that directory";
  if (status.IsNoSpace())
    remedy = "free disk space there and start again; nothing is lost, the source keeps what was not confirmed";
  throw Error{
      {ErrorKind::State},
      fmt::format("state directory {}: {}: {}. Remedy: {}", directory.string(), doing, status.ToString(), remedy)};
}

rocksdb::CompressionType best_compression() {
  const auto supported = rocksdb::GetSupportedCompressions();
  const bool has_lz4 = std::find(supported.begin(), supported.end(), rocksdb::kLZ4Compression) != supported.end();
  return has_lz4 ? rocksdb::kLZ4Compression : rocksdb::kNoCompression;
}

rocksdb::ColumnFamilyOptions family_options(bool bulk) {
  rocksdb::ColumnFamilyOptions options;
  options.write_buffer_size = bulk ? 32U << 20U : 1U << 20U;
  options.max_write_buffer_number = 3;
  options.compression = bulk ? best_compression() : rocksdb::kNoCompression;
  rocksdb::BlockBasedTableOptions table;
  table.block_size = bulk ? 64U << 10U : 4U << 10U;
  table.no_block_cache = bulk;  // spooled bytes are read once
  options.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
  return options;
}

// RocksDB's log of its own doings is left out: on a full disk the writer of that file ends the process by an assertion.
// What it has to say of a failure is in the status of the call.
class NoLog final : public rocksdb::Logger {
 public:
  using rocksdb::Logger::Logv;
  void Logv(const char* /*format*/, va_list /*arguments*/) override {}
};

void prepare_directory(const fs::path& directory) {
  std::error_code failure;
  if (!fs::exists(directory, failure) && !failure) {
    fs::create_directories(directory, failure);
    if (!failure) fs::permissions(directory, fs::perms::owner_all, failure);
  }
  if (failure || !fs::is_directory(directory, failure)) {
    throw Error{
        {ErrorKind::State},
        fmt::format("state directory {}: {}. Remedy: name a directory that this user may read and write (--state-dir)",
                    directory.string(), failure ? failure.message() : "this is not a directory")};
  }
}

}  // namespace

bool Database::any_left_open() {
  return left_open;
}

void Database::Close::operator()(rocksdb::DB* database) const {
  if (failure->first) {
    left_open = true;
    return;
  }
  database->Close();
  delete database;
}

Database::Handles::~Handles() {
  for (rocksdb::ColumnFamilyHandle* family : list) database->DestroyColumnFamilyHandle(family);
}

Database::Database(fs::path directory, std::unique_ptr<rocksdb::DB, Close> database,
                   std::vector<rocksdb::ColumnFamilyHandle*> families)
    : directory_(std::move(directory)), failure_(database.get_deleter().failure), database_(std::move(database)) {
  families_.database = database_.get();
  families_.list = std::move(families);
}

Database Database::open(const fs::path& directory, Access access) {
  const fs::path place = directory / "rocksdb";
  if (access == Access::ReadWrite) {
    prepare_directory(directory);
  } else {
    std::error_code failure;
    if (!fs::exists(place, failure)) {
      throw Error{
          {ErrorKind::State},
          fmt::format("state directory {}: {}. Remedy: name the directory that `walferry run` was given (--state-dir)",
                      directory.string(), failure ? failure.message() : "no migration was started here")};
    }
  }
  rocksdb::DBOptions options;
  options.create_if_missing = access == Access::ReadWrite;
  options.create_missing_column_families = true;
  options.max_total_wal_size = 128U << 20U;
  options.info_log = std::make_shared<NoLog>();
  options.max_open_files = 256;
  options.max_background_jobs = 2;
  const std::vector<rocksdb::ColumnFamilyDescriptor> families{
      {rocksdb::kDefaultColumnFamilyName, family_options(false)},
      {"blocks", family_options(true)},
      {"streams", family_options(true)}};
  std::vector<rocksdb::ColumnFamilyHandle*> handles;
  rocksdb::DB* opened = nullptr;
  const rocksdb::Status status =
      access == Access::ReadWrite ? rocksdb::DB::Open(options, place.string(), families, &handles, &opened)
                                  : rocksdb::DB::OpenForReadOnly(options, place.string(), families, &handles, &opened);
  if (!status.ok()) {
    const std::string why = status.ToString();
    // Held by another process (EAGAIN), or by this one.
    if (status.IsIOError() && (why.find("LOCK: Resource temporarily unavailable") != std::string::npos ||
                               why.find("lock hold by current process") != std::string::npos)) {
      throw Error{
          {ErrorKind::State},
          fmt::format(
              "state directory {}: another walferry works on it. Remedy: `walferry status --state-dir {}` shows it; "
              "stop it first, or name another directory",
              directory.string(), directory.string())};
    }
    check(status, directory, "cannot be opened");
  }
  return Database{directory, std::unique_ptr<rocksdb::DB, Close>{opened, Close{std::make_shared<Failure>()}},
                  std::move(handles)};
}

rocksdb::ColumnFamilyHandle* Database::handle(Family family) const {
  return families_.list[static_cast<std::size_t>(family)];
}

std::optional<std::string> Database::get(Family family, std::string_view key) const {
  std::string value;
  const rocksdb::Status status = database_->Get({}, handle(family), slice(key), &value);
  if (status.IsNotFound()) return std::nullopt;
  check(status, directory_, "reading");
  return value;
}

namespace {

rocksdb::WriteOptions write_options(Database::Durability durability) {
  rocksdb::WriteOptions options;
  options.sync = durability == Database::Durability::Synced;
  options.disableWAL = durability == Database::Durability::Unlogged;
  return options;
}

}  // namespace

void Database::write(std::string_view doing, const std::function<rocksdb::Status()>& work) {
  {
    const std::scoped_lock lock{failure_->mutex};
    if (failure_->first) throw *failure_->first;
  }
  try {
    check(work(), directory_, doing);
  } catch (const Error& error) {
    const std::scoped_lock lock{failure_->mutex};
    if (!failure_->first) failure_->first = error;
    throw;
  }
}

void Database::put(Family family, std::string_view key, std::string_view value, Durability durability) {
  write("writing", [&] { return database_->Put(write_options(durability), handle(family), slice(key), slice(value)); });
}

void Database::erase(Family family, std::string_view key, Durability durability) {
  write("deleting", [&] { return database_->Delete(write_options(durability), handle(family), slice(key)); });
}

void Database::erase_range(Family family, std::string_view begin, std::string_view end) {
  const rocksdb::Slice first = slice(begin);
  const rocksdb::Slice last = slice(end);
  write("deleting",
        [&] { return database_->DeleteRange(write_options(Durability::Logged), handle(family), first, last); });
  write("deleting files",
        [&] { return rocksdb::DeleteFilesInRange(database_.get(), handle(family), &first, &last, false); });
}

std::vector<std::pair<std::string, std::string>> Database::scan(Family family, std::string_view prefix) const {
  std::vector<std::pair<std::string, std::string>> found;
  const std::unique_ptr<rocksdb::Iterator> at{database_->NewIterator({}, handle(family))};
  for (at->Seek(slice(prefix)); at->Valid() && at->key().starts_with(slice(prefix)); at->Next()) {
    found.emplace_back(at->key().ToString(), at->value().ToString());
  }
  check(at->status(), directory_, "reading");
  return found;
}

void Database::for_each(Family family, const std::function<void(std::string_view, std::string_view)>& visit) const {
  const std::unique_ptr<rocksdb::Iterator> at{database_->NewIterator({}, handle(family))};
  for (at->SeekToFirst(); at->Valid(); at->Next()) {
    visit({at->key().data(), at->key().size()}, {at->value().data(), at->value().size()});
  }
  check(at->status(), directory_, "reading");
}

void Database::sync_log() {
  write("syncing", [&] { return database_->FlushWAL(true); });
}

void Database::flush(Family family) {
  write("flushing", [&] { return database_->Flush(rocksdb::FlushOptions{}, handle(family)); });
}

}  // namespace walferry::store
