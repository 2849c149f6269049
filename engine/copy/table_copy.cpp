#include "engine/copy/table_copy.hpp"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <array>
#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <set>
#include <thread>

#include "engine/pg/copy_out.hpp"

namespace walferry::copy {
namespace {

constexpr std::int64_t pages_per_part_min = 8'192;  // 64 MiB: below it a second reader costs more than it brings
constexpr std::size_t send_bytes = std::size_t{64} << 10U;
constexpr int attempts_per_part = 20;
// One connection that writes keeps a processor busy, and another one with what is read for it.
constexpr unsigned processors_per_writer = 2;

struct Part {
  std::size_t table = 0;
  PageRange range;
  bool whole = true;  // the only part of its table
};

std::vector<std::string> copied_columns(const Table& table) {
  std::vector<std::string> columns;
  for (const Column& column : table.columns) {
    if (!column.generated) columns.push_back(pg::quote_name(column.name));
  }
  return columns;
}

std::string joined(const std::vector<std::string>& parts) {
  return fmt::format("{}", fmt::join(parts, ", "));
}

// A target that was made beforehand may be partitioned where the source is not, and has its foreign keys: TRUNCATE is
// refused where one leads to the table, even from an empty one.
std::string emptying_statement(const TableToCopy& table) {
  return fmt::format("{} {}{}", table.referenced ? "DELETE FROM" : "TRUNCATE", table.target->kind == 'p' ? "" : "ONLY ",
                     table.source.name.quoted());
}

pg::Session open_target(const CopyOptions& options) {
  pg::Session target = pg::Session::open(options.target, {.application_name = "walferry copy",
                                                          .client_encoding = options.client_encoding,
                                                          .settings = {"synchronous_commit=on"}});
  try {
    target.exec("SET session_replication_role = replica");
  } catch (const Error& error) {
    if (error.sqlstate() != "42501") throw;  // then there are neither triggers nor foreign keys (target_state.cpp)
  }
  return target;
}

// Tables of the target to which another one's foreign key leads.
std::set<Oid> referenced_tables(pg::Session& target) {
  const pg::Result rows = target.exec(
      "SELECT DISTINCT confrelid FROM pg_catalog.pg_constraint WHERE contype = 'f' AND conrelid <> confrelid");
  std::set<Oid> tables;
  for (int row = 0; row < rows.rows(); ++row) tables.insert(Oid{rows.u32(row, 0)});
  return tables;
}

// The parts that wait, the tables whose parts are out, and the first failure; shared by the copy threads.
class PartQueue {
 public:
  PartQueue(std::deque<Part> parts, std::vector<std::size_t> parts_of_table)
      : parts_(std::move(parts)), open_parts_(std::move(parts_of_table)) {}

  std::optional<Part> take() {
    const std::scoped_lock lock{mutex_};
    if (failure_ || parts_.empty()) return std::nullopt;
    const Part part = parts_.front();
    parts_.pop_front();
    return part;
  }
  // True when it was the last part of its table.
  [[nodiscard]] bool finish(const Part& part) {
    const std::scoped_lock lock{mutex_};
    return --open_parts_[part.table] == 0;
  }
  void fail(std::exception_ptr failure) {
    const std::scoped_lock lock{mutex_};
    if (!failure_) failure_ = std::move(failure);
  }
  [[nodiscard]] bool failed() {
    const std::scoped_lock lock{mutex_};
    return failure_ != nullptr;
  }
  void rethrow() {
    const std::scoped_lock lock{mutex_};
    if (failure_) std::rethrow_exception(failure_);
  }
  // The snapshot no longer shows the rows of this table: it is not copied, the others are.
  void leave_out(std::size_t table) {
    const std::scoped_lock lock{mutex_};
    left_out_.insert(table);
  }
  [[nodiscard]] std::set<std::size_t> left_out() {
    const std::scoped_lock lock{mutex_};
    return left_out_;
  }

 private:
  std::mutex mutex_;
  std::deque<Part> parts_;
  std::vector<std::size_t> open_parts_;
  std::exception_ptr failure_;
  std::set<std::size_t> left_out_;
};

// One copy thread: its two sessions and what it does with a part.
class Copier {
 public:
  Copier(const CopyOptions& options, const std::vector<TableToCopy>& tables, PartQueue& queue)
      : options_(options), tables_(tables), queue_(queue), stop_(options.source.stop()) {}

  void run() {
    while (const std::optional<Part> part = queue_.take()) {
      const TableToCopy& table = tables_[part->table];
      if (options_.on_started) options_.on_started(table.source);
      if (!copy_with_retries(*part)) {
        queue_.leave_out(part->table);
      } else if (queue_.finish(*part) && options_.on_copied) {
        options_.on_copied(table.source);
      }
    }
  }

 private:
  // False when the table was emptied or rewritten since the snapshot.
  bool copy_with_retries(const Part& part) {
    const TableToCopy& table = tables_[part.table];
    for (int attempt = 1;; ++attempt) {
      std::int64_t bytes = 0;
      std::int64_t rows = 0;
      try {
        committing_ = false;
        connect();
        return copy(part, bytes, rows);
      } catch (const Error& error) {
        table.counters->bytes -= bytes;
        table.counters->rows -= rows;
        source_.reset();
        target_.reset();
        const Error located = error.during("copying " + table.source.name.text());
        // A part of several that may or may not be committed, and a snapshot that is gone, are for the caller: it
        // truncates the table and copies it anew, under a new snapshot where need be.
        const bool for_the_caller = (committing_ && !part.whole) || error.sqlstate() == pg::snapshot_gone;
        if (!is_transient(error) || for_the_caller || attempt == attempts_per_part || queue_.failed()) throw located;
        spdlog::warn("{}; this part is copied again", located.what());
        wait(std::chrono::milliseconds{std::min(100 << std::min(attempt, 5), 3'000)});
      }
    }
  }

  void wait(std::chrono::milliseconds pause) {
    std::mutex mutex;
    std::unique_lock lock{mutex};
    std::condition_variable_any{}.wait_for(lock, stop_, pause, [] { return false; });
  }

  void connect() {
    if (!source_) {
      pg::Session source = pg::Session::open(
          options_.source, {.application_name = "walferry copy", .client_encoding = options_.client_encoding});
      pg::use_snapshot(source, options_.snapshot);
      source_.emplace(std::move(source));
    }
    if (!target_) target_.emplace(open_target(options_));
  }

  bool copy(const Part& part, std::int64_t& bytes, std::int64_t& rows) {
    const TableToCopy& table = tables_[part.table];
    const std::vector<std::string> columns = copied_columns(table.source);
    const bool binary =
        binary_is_safe(table.source, *table.target) && (!intervals_may_differ() || !has_intervals(table.source));
    const std::string list = columns.empty() ? "" : " (" + joined(columns) + ")";
    const std::string format = binary ? "FORMAT binary" : "FORMAT text";

    target_->exec("BEGIN");
    // FREEZE needs a table truncated in this transaction, which only a sole writer can do, and no partitions.
    if (part.whole) target_->exec(emptying_statement(table));
    const bool freeze = part.whole && !table.referenced && table.target->kind != 'p';
    target_->start_copy_in(fmt::format("COPY {}{} FROM STDIN WITH ({}{})", table.source.name.quoted(), list, format,
                                       freeze ? ", FREEZE" : ""));
    // A lock on a table lasts as long as its part, not as long as the transaction that holds the snapshot: the
    // application can truncate and alter what is copied.
    source_->exec("SAVEPOINT part");
    pg::CopyOut source{*source_, reading_statement(table.source, part, columns, list, format)};
    forward(source, *table.counters, bytes, rows);
    if (binary) {
      // The binary trailer is a message of its own, but no row.
      --rows;
      --table.counters->rows;
    }
    const bool shown = rows_are_shown(table.source);
    source_->exec("ROLLBACK TO SAVEPOINT part; RELEASE SAVEPOINT part");
    const std::int64_t loaded = target_->finish_copy_in();
    if (!shown) {
      target_->exec("ROLLBACK");
      table.counters->bytes -= bytes;
      table.counters->rows -= rows;
      return false;
    }
    if (loaded != rows) {
      throw Error{{ErrorKind::Divergence, Side::Target},
                  fmt::format("{} rows were sent and {} were loaded", rows, loaded)};
    }
    committing_ = true;
    target_->exec("COMMIT");
    return true;
  }

  // Infinite ones, of 17: an older server would take their binary form for a very long time.
  [[nodiscard]] bool intervals_may_differ() const {
    constexpr int infinite_from = 170'000;
    return source_->server_version() >= infinite_from && target_->server_version() < infinite_from;
  }

  static bool has_intervals(const Table& table) {
    return std::ranges::any_of(
        table.columns, [](const Column& column) { return column.type == Oid{1186} || column.type == Oid{1187}; });
  }

  // TRUNCATE is not transactional in every respect: a snapshot from before it finds the table empty. The table's file
  // tells, as the snapshot knows it and as it is now; the lock of the COPY is still held. And the name that was read
  // may be another table's by now.
  bool rows_are_shown(const Table& table) {
    const std::string name = fmt::format("SELECT pg_catalog.to_regclass({})::pg_catalog.oid IS NOT DISTINCT FROM {}",
                                         pg::quote_literal(table.name.quoted()), static_cast<std::uint32_t>(table.oid));
    if (!source_->exec(name).flag(0, 0)) return false;
    if (table.kind == 'p') {
      return source_
          ->exec(fmt::format("SELECT coalesce(bool_and(pg_catalog.pg_relation_filenode(c.oid) IS NOT DISTINCT FROM "
                             "c.relfilenode), true) FROM pg_catalog.pg_partition_tree({}) p JOIN pg_catalog.pg_class c "
                             "ON c.oid = p.relid AND c.relkind = 'r'",
                             static_cast<std::uint32_t>(table.oid)))
          .flag(0, 0);
    }
    return source_
        ->exec(fmt::format("SELECT pg_catalog.pg_relation_filenode(c.oid) IS NOT DISTINCT FROM c.relfilenode "
                           "FROM pg_catalog.pg_class c WHERE c.oid = {}",
                           static_cast<std::uint32_t>(table.oid)))
        .flag(0, 0);
  }

  static std::string reading_statement(const Table& table, const Part& part, const std::vector<std::string>& columns,
                                       const std::string& list, const std::string& format) {
    const std::string to = fmt::format("TO STDOUT WITH ({})", format);
    if (table.kind == 'p') return fmt::format("COPY (SELECT {} FROM {}) {}", joined(columns), table.name.quoted(), to);
    if (part.whole) return fmt::format("COPY {}{} {}", table.name.quoted(), list, to);
    std::string condition = fmt::format("ctid >= '({},0)'::pg_catalog.tid", part.range.begin);
    if (part.range.end > 0) condition += fmt::format(" AND ctid < '({},0)'::pg_catalog.tid", part.range.end);
    return fmt::format("COPY (SELECT {} FROM ONLY {} WHERE {}) {}", joined(columns), table.name.quoted(), condition,
                       to);
  }

  // Many rows to one CopyData: the target's backend does fixed work per message.
  void forward(pg::CopyOut& source, CopyCounters& counters, std::int64_t& bytes, std::int64_t& rows) {
    for (bool more = true; more;) {
      buffer_.clear();
      more = source.read(buffer_, send_bytes);
      if (!buffer_.empty()) target_->put_copy_data(buffer_);
      const std::int64_t new_rows = source.rows() - rows;
      bytes += static_cast<std::int64_t>(buffer_.size());
      rows += new_rows;
      counters.bytes += static_cast<std::int64_t>(buffer_.size());
      counters.rows += new_rows;
    }
  }

  const CopyOptions& options_;
  const std::vector<TableToCopy>& tables_;
  PartQueue& queue_;
  std::stop_token stop_;
  std::optional<pg::Session> source_;
  std::optional<pg::Session> target_;
  std::string buffer_;
  bool committing_ = false;
};

// Emptying the table at the top, and writing to it, would reach them, and what lies behind them.
void require_no_foreign_partitions(pg::Session& session, const Table& table) {
  if (table.kind != 'p') return;
  const pg::Result found = session.exec(
      fmt::format("SELECT c.oid::pg_catalog.regclass::pg_catalog.text FROM pg_catalog.pg_partition_tree({}) p JOIN "
                  "pg_catalog.pg_class c ON c.oid = p.relid WHERE c.relkind = 'f' ORDER BY 1",
                  static_cast<std::uint32_t>(table.oid)));
  if (found.rows() == 0) return;
  throw Error{{ErrorKind::Refused, session.side()},
              fmt::format("partitioned table {0} is carried as a whole, and on the {1} its partition {2} is a foreign "
                          "table, whose rows would be copied, and emptied, where they lie. Nothing was copied. Remedy: "
                          "ALTER TABLE {0} DETACH PARTITION {2}; on the {1}",
                          table.name.quoted(), to_string(session.side()), found.str(0, 0))};
}

// Types whose binary form holds object ids or has no send function; text names what is meant.
bool type_is_binary_safe(Oid type) {
  static constexpr std::array<std::uint32_t, 26> unsafe{
      24,   2202, 2203, 2204, 2205, 2206, 3734, 3769, 4089, 4096, 4191,  // reg*
      1008, 2207, 2208, 2209, 2210, 2211, 3735, 3770, 4090, 4097, 4192,  // their arrays
      1033, 1034,                                                        // aclitem
      2949, 2970};                                                       // txid_snapshot
  const auto oid = static_cast<std::uint32_t>(type);
  // Objects below 10000 have the same oid, and the same binary form, on every major.
  return oid < 10'000 && std::ranges::find(unsafe, oid) == unsafe.end();
}

}  // namespace

std::vector<PageRange> cut_into_parts(std::int64_t pages, int jobs, int source_version) {
  // Before 14 a range of ctids is not scanned as a range: every part would read the whole table.
  if (source_version < 140'000 || jobs < 2 || pages < 2 * pages_per_part_min) return {{}};
  const std::int64_t wanted = std::min<std::int64_t>(pages / pages_per_part_min, static_cast<std::int64_t>(jobs) * 8);
  std::vector<PageRange> parts;
  for (std::int64_t i = 0; i < wanted; ++i) parts.push_back({pages * i / wanted, pages * (i + 1) / wanted});
  parts.back().end = 0;
  return parts;
}

bool splits_tables(SplitTables wanted, bool target_is_here, unsigned processors) {
  if (wanted != SplitTables::Auto) return wanted == SplitTables::Yes;
  return !target_is_here || processors >= 2 * processors_per_writer;
}

bool binary_is_safe(const Table& source, const Table& target) {
  for (const Column& column : source.columns) {
    if (column.generated) continue;
    const auto same = std::ranges::find(target.columns, column.name, &Column::name);
    if (same == target.columns.end() || same->type != column.type || !type_is_binary_safe(column.type)) return false;
  }
  return !source.columns.empty();
}

void copy_tables(const CopyOptions& options, std::vector<TableToCopy> tables) {
  std::ranges::stable_sort(tables, std::ranges::greater{}, [](const TableToCopy& table) { return table.source.bytes; });
  std::deque<Part> parts;
  std::vector<std::size_t> parts_of_table(tables.size());
  {
    pg::Session source = pg::Session::open(options.source, {.application_name = "walferry copy"});
    pg::Session target = open_target(options);
    for (const TableToCopy& table : tables) {
      require_no_foreign_partitions(source, table.source);
      require_no_foreign_partitions(target, *table.target);
    }
    const std::set<Oid> referenced = referenced_tables(target);
    const bool split = splits_tables(options.split, pg::is_here(target), std::thread::hardware_concurrency());
    for (std::size_t i = 0; i < tables.size(); ++i) {
      tables[i].referenced = referenced.contains(tables[i].target->oid);
      const std::vector<PageRange> ranges =
          cut_into_parts(tables[i].source.pages, split ? options.jobs : 1, source.server_version());
      for (const PageRange& range : ranges) parts.push_back({.table = i, .range = range, .whole = ranges.size() == 1});
      parts_of_table[i] = ranges.size();
      // Several writers: emptied beforehand, once.
      if (ranges.size() > 1) target.exec(emptying_statement(tables[i]));
    }
  }
  PartQueue queue{std::move(parts), std::move(parts_of_table)};
  {
    std::vector<std::jthread> threads;
    for (int i = 0; i < options.jobs; ++i) {
      threads.emplace_back([&options, &tables, &queue] {
        try {
          Copier{options, tables, queue}.run();
        } catch (...) {
          queue.fail(std::current_exception());  // rethrown below, when all have ended
        }
      });
    }
  }
  queue.rethrow();
  std::vector<std::string> left_out;
  for (const std::size_t table : queue.left_out()) left_out.push_back(tables[table].source.name.text());
  if (!left_out.empty()) {
    throw Error{
        {ErrorKind::Sql, Side::Source, std::string{pg::snapshot_gone}},
        fmt::format("truncated or rewritten on the source since the snapshot, so copied again under a new one: {}",
                    fmt::join(left_out, ", "))};
  }
}

}  // namespace walferry::copy
