#include "engine/verify/verify.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <exception>
#include <functional>
#include <future>
#include <map>
#include <thread>
#include <utility>

#include "engine/listed.hpp"
#include "engine/outside/extension_tables.hpp"
#include "engine/outside/large_objects.hpp"
#include "engine/verify/digest.hpp"

namespace walferry {
namespace {

// Tables below this travel together in one statement, so that a schema of many small tables costs few round trips.
constexpr std::int64_t batch_bytes_max = 4 << 20;
constexpr std::size_t batch_tables_max = 32;

struct SessionPair {
  pg::Session source;
  pg::Session target;
};

// One comparison to be made: what to ask of each side, and where the answer goes.
struct Item {
  DigestRequest request;
  std::string target_rows = {};  // as request.rows, where the target's differ
  std::int64_t bytes = 0;
  std::size_t comparison = 0;
  bool rows_only = false;
};

using Batch = std::vector<Item>;

std::vector<DigestRequest> requests_of(const Batch& batch, Side side) {
  std::vector<DigestRequest> requests;
  requests.reserve(batch.size());
  for (const Item& item : batch) {
    requests.push_back(item.request);
    if (side == Side::Target && !item.target_rows.empty()) requests.back().rows = item.target_rows;
  }
  return requests;
}

pg::Session open_reader(const pg::ConnInfo& info, const VerifyOptions& verify) {
  pg::SessionOptions options;
  options.application_name = "walferry verify";
  // Compiling an expression for each of many small tables takes longer than hashing them.
  options.read_only = true;
  options.client_encoding = verify.client_encoding;
  options.settings = {"jit=off", fmt::format("statement_timeout={}", verify.statement_timeout.count()),
                      fmt::format("lock_timeout={}", verify.lock_timeout.count())};
  return pg::Session::open(info, options);
}

// Opens the transaction of the first session of a side; the others join its snapshot.
std::string begin_first(pg::Session& session, const std::optional<std::string>& snapshot) {
  if (snapshot) {
    pg::use_snapshot(session, *snapshot);
    return *snapshot;
  }
  session.exec("BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY");
  return session.exec("SELECT pg_catalog.pg_export_snapshot()").str(0, 0);
}

const Column* find_column(const Table& table, const std::string& name) {
  const auto found = std::find_if(table.columns.begin(), table.columns.end(),
                                  [&name](const Column& column) { return column.name == name; });
  return found == table.columns.end() ? nullptr : &*found;
}

void add_note(std::string& note, const std::string& text) {
  if (text.empty()) return;
  if (!note.empty()) note += "; ";
  note += text;
}

// Notes what is known before a row is read. Returns whether the target has every column of the source.
bool compare_shape(const Table& source, const Table& target, TableComparison& comparison) {
  std::vector<std::string> absent;
  std::vector<std::string> other_type;
  std::vector<std::string> extra;
  for (const Column& column : source.columns) {
    const Column* counterpart = find_column(target, column.name);
    if (counterpart == nullptr) {
      absent.push_back(column.name);
    } else if (counterpart->type_name != column.type_name) {
      other_type.push_back(fmt::format("{} ({} / {})", column.name, column.type_name, counterpart->type_name));
    }
  }
  for (const Column& column : target.columns) {
    if (find_column(source, column.name) == nullptr) extra.push_back(column.name);
  }
  if (!absent.empty()) add_note(comparison.note, "columns missing on the target: " + listed(absent));
  if (!other_type.empty()) add_note(comparison.note, "types differ (source / target): " + listed(other_type));
  if (!extra.empty()) add_note(comparison.note, "columns that only the target has, not compared: " + listed(extra));
  if (source.persistence == 'u') add_note(comparison.note, "unlogged: its changes are not in the stream");
  return absent.empty();
}

// The touched rows of a table as a request can name them; nothing when all of its rows must be compared. Types of
// extensions and other schemas may have an equality that the pinned search_path does not reach.
std::optional<DigestKeys> keys_of(const Table& table, const TouchedTable& touched) {
  if (touched.whole()) return {};
  DigestKeys keys{.columns = touched.key_columns(), .types = {}, .values = touched.key_values()};
  for (const std::string& name : keys.columns) {
    const Column* column = find_column(table, name);
    if (column == nullptr || !column->comparable || column->type_name.find('.') != std::string::npos) return {};
    keys.types.push_back(column->type_name);
  }
  return keys;
}

// What no publication carries: contents of large objects, rows of users in tables of extensions.
std::vector<Item> plan_outside(SessionPair& pair, const VerifyOptions& options, VerifyReport& report) {
  std::vector<Item> items;
  const auto add = [&](Item item) {
    item.comparison = report.tables.size();
    report.tables.push_back({.name = item.request.name});
    items.push_back(std::move(item));
  };
  const outside::LargeObjects objects = outside::count_large_objects(pair.source);
  const bool only_recorded = options.allow_extra_on_target && outside::has_large_object_record(pair.target);
  if (objects.objects > 0 || only_recorded ||
      (!options.allow_extra_on_target && outside::count_large_objects(pair.target).objects > 0)) {
    const bool by_pages = outside::may_read_pages(pair.source) && outside::may_read_pages(pair.target);
    add({.request = {{"pg_catalog", "pg_largeobject"},
                     {"data", "loid", "pageno"},
                     outside::large_object_rows(by_pages, false)},
         .target_rows = outside::large_object_rows(by_pages, only_recorded),
         .bytes = objects.bytes});
  }
  for (const outside::ExtensionTable& table : outside::match_extension_tables(pair.source, pair.target).common) {
    if (table.sequence || table.columns.empty()) continue;
    add({.request = {table.name, table.columns, table.rows()}, .target_rows = table.rows()});
  }
  return items;
}

// Pairs the tables by name, fills the report's list of comparisons and of missing tables, and returns the work, largest
// first.
std::vector<Batch> plan(const Catalog& source, const Catalog& target, const VerifyOptions& options,
                        std::vector<Item> items, const TouchedRows* touched, VerifyReport& report) {
  const std::set<QualifiedName> as_one = partitioned_differently(source, target);
  // A table that stands for its partitions does so for whoever names one of them.
  const auto any_part = [&source, &as_one](const Table& table, const auto& holds) {
    return as_one.contains(table.name) && std::ranges::any_of(source.tables, [&](const Table& part) {
             return part.partition && part.root == table.name && holds(part.name);
           });
  };
  const auto wanted = [&options, &any_part](const Table& table) {
    return !options.only || options.only->contains(table.name) ||
           (table.partition && options.only->contains(table.root)) ||
           any_part(table, [&](const QualifiedName& part) { return options.only->contains(part); });
  };
  for (const Table& table : source.tables) {
    // Where the sides are partitioned differently the table at the top stands for its partitions.
    const bool whole = as_one.contains(table.name);
    if (!whole && (!table.holds_rows() || as_one.contains(table.root))) continue;
    if (!wanted(table) || (table.persistence == 'u' && !options.outside_the_stream)) continue;
    const TouchedTable* rows = touched == nullptr ? nullptr : touched->find(table.name);
    const bool parts_touched = touched != nullptr && any_part(table, [&](const QualifiedName& part) {
                                 return touched->find(part) != nullptr;
                               });
    if (touched != nullptr && rows == nullptr && !parts_touched && table.persistence != 'u') continue;
    const Table* counterpart = target.find(table.name);
    if (counterpart == nullptr) {
      report.missing_on_target.push_back(table.name);
      continue;
    }
    const std::string whole_name = whole ? table.name.quoted() : std::string{};
    TableComparison comparison{.name = table.name};
    const bool comparable = compare_shape(table, *counterpart, comparison);
    std::optional<DigestKeys> keys;
    if (rows != nullptr && comparable && !parts_touched) keys = keys_of(table, *rows);
    if (keys) comparison.keys = static_cast<std::int64_t>(rows->rows());
    items.push_back({.request = {.name = table.name,
                                 .columns = comparable ? digest_columns(table) : std::vector<std::string>{},
                                 .rows = whole_name,
                                 .keys = std::move(keys)},
                     .target_rows = counterpart->holds_rows() ? whole_name : table.name.quoted(),
                     .bytes = table.bytes,
                     .comparison = report.tables.size(),
                     .rows_only = !comparable});
    report.tables.push_back(std::move(comparison));
  }
  if (!options.allow_extra_on_target && !options.only) {
    for (const Table& table : target.tables) {
      const QualifiedName& top = table.partition ? table.root : table.name;
      if (!table.holds_rows() || as_one.contains(top)) continue;
      // What the source keeps in one table may be in partitions here.
      const Table* counterpart = source.find(top);
      if (counterpart == nullptr || !counterpart->holds_rows()) counterpart = source.find(table.name);
      if (counterpart == nullptr || !counterpart->holds_rows()) report.missing_on_source.push_back(table.name);
    }
  }
  std::stable_sort(items.begin(), items.end(), [](const Item& a, const Item& b) { return a.bytes > b.bytes; });
  std::vector<Batch> batches;
  std::int64_t bytes = 0;
  for (Item& item : items) {
    const std::int64_t item_bytes = item.bytes;
    if (batches.empty() || bytes + item_bytes > batch_bytes_max || batches.back().size() >= batch_tables_max) {
      batches.emplace_back();
      bytes = 0;
    }
    bytes += item_bytes;
    batches.back().push_back(std::move(item));
  }
  return batches;
}

void compare_all_sequences(const Catalog& source, const Catalog& target, SessionPair& pair,
                           const VerifyOptions& options, VerifyReport& report) {
  const SequenceState source_state{source.sequences, read_sequence_values(pair.source, source.sequences)};
  const SequenceState target_state{target.sequences, read_sequence_values(pair.target, target.sequences)};
  report.sequences = compare_sequences(source_state, target_state);
  if (options.allow_extra_on_target) {
    std::erase_if(report.sequences, [](const SequenceComparison& sequence) { return !sequence.source; });
  }
}

// Runs the batches on all pairs of sessions. The first failure, or a stop, interrupts every session.
class Comparison {
 public:
  Comparison(std::vector<SessionPair>& pairs, const std::vector<Batch>& batches, const DigestMethod& method,
             VerifyReport& report)
      : pairs_(pairs), batches_(batches), method_(method), report_(report) {}

  void run(const std::stop_token& stop) {
    const std::stop_callback on_halt{halt_.get_token(), [this] { interrupt_all(); }};
    const std::stop_callback on_stop{stop, [this] { halt_.request_stop(); }};
    std::vector<std::jthread> threads;
    for (std::size_t i = 1; i < pairs_.size(); ++i) threads.emplace_back([this, i] { work(pairs_[i]); });
    work(pairs_.front());
    threads.clear();  // joins
    if (stop.stop_requested())
      throw Error{{ErrorKind::Stopped}, "verify was stopped before it had compared everything"};
    if (failure_) std::rethrow_exception(failure_);
  }

 private:
  void interrupt_all() {
    for (SessionPair& pair : pairs_) {
      pair.source.interrupt();
      pair.target.interrupt();
    }
  }

  void work(SessionPair& pair) {
    while (!halt_.stop_requested()) {
      const std::size_t mine = next_.fetch_add(1);
      if (mine >= batches_.size()) return;
      const Batch& batch = batches_[mine];
      std::future<std::vector<TableDigest>> source =
          std::async(std::launch::async, [this, &pair, &batch] { return digest(pair.source, batch); });
      const std::vector<TableDigest> target_digests = digest(pair.target, batch);
      const std::vector<TableDigest> source_digests = source.get();
      if (source_digests.size() != batch.size() || target_digests.size() != batch.size()) return;  // failure_ says why
      for (std::size_t i = 0; i < batch.size(); ++i) record(batch[i], source_digests[i], target_digests[i]);
    }
  }

  // Empty when it failed: then failure_ holds the first reason and everything is being interrupted.
  std::vector<TableDigest> digest(pg::Session& session, const Batch& batch) noexcept {
    try {
      return digest_and_release(session, requests_of(batch, session.side()), method_);
    } catch (const std::exception&) {
      if (!failed_.test_and_set()) failure_ = std::current_exception();
      halt_.request_stop();
      return {};
    }
  }

  // Each comparison belongs to one batch, so that no two threads write to the same one.
  void record(const Item& item, const TableDigest& source, const TableDigest& target) {
    TableComparison& comparison = report_.tables[item.comparison];
    comparison.rows_source = source.rows;
    comparison.rows_target = target.rows;
    if (item.rows_only) return;
    comparison.hash_source = source.hash;
    comparison.hash_target = target.hash;
    comparison.equal = source.rows == target.rows && source.hash == target.hash;
  }

  std::vector<SessionPair>& pairs_;
  const std::vector<Batch>& batches_;
  const DigestMethod& method_;
  VerifyReport& report_;
  std::atomic<std::size_t> next_ = 0;
  std::atomic_flag failed_;
  std::exception_ptr failure_;  // written once by whoever set failed_, read after all threads are joined
  std::stop_source halt_;
};

}  // namespace

struct Verification::Prepared {
  VerifyOptions options;
  std::vector<SessionPair> pairs;
  DigestMethod method;
  Catalog source_catalog;
  Catalog target_catalog;
  std::vector<Item> outside;  // whose changes are not in the stream
  std::vector<Batch> batches;
  VerifyReport report;
};

Verification::Verification(std::unique_ptr<Prepared> prepared) : prepared_(std::move(prepared)) {}
Verification::Verification(Verification&&) noexcept = default;
Verification::~Verification() = default;

Verification Verification::prepare(const pg::ConnInfo& source, const pg::ConnInfo& target, const VerifyOptions& options,
                                   const std::stop_token& stop) {
  auto prepared = std::make_unique<Prepared>();
  prepared->options = options;
  const std::size_t jobs_max = static_cast<std::size_t>(std::max(options.jobs, 1));
  std::vector<SessionPair>& pairs = prepared->pairs;
  pairs.reserve(jobs_max);  // the sessions must stay where they are while others may interrupt them
  pairs.push_back({open_reader(source, options), open_reader(target, options)});
  SessionPair& first = pairs.front();
  // Catalogs can make us wait as well: a table that somebody has locked exclusively.
  const std::stop_callback interrupt_first{stop, [&first] {
                                             first.source.interrupt();
                                             first.target.interrupt();
                                           }};
  prepared->method = choose_digest_method(first.source, first.target);
  prepared->source_catalog = read_catalog(first.source);
  prepared->target_catalog = read_catalog(first.target);
  if (!options.selection.empty()) {
    keep_selected(prepared->source_catalog, first.source, options.selection);
    std::set<QualifiedName>& only = prepared->options.only.emplace();
    for (const Table& table : prepared->source_catalog.tables) only.insert(table.name);
  }
  if (prepared->options.only)
    keep_sequences_of(*prepared->options.only, prepared->source_catalog, prepared->target_catalog, first.source);
  if (!prepared->options.only && options.outside_the_stream)
    prepared->outside = plan_outside(first, options, prepared->report);
  prepared->batches = plan(prepared->source_catalog, prepared->target_catalog, prepared->options, prepared->outside,
                           nullptr, prepared->report);
  const std::size_t jobs = std::min(jobs_max, prepared->batches.size());
  while (pairs.size() < jobs && !stop.stop_requested())
    pairs.push_back({open_reader(source, options), open_reader(target, options)});
  return Verification{std::move(prepared)};
}

void Verification::warm_up() {
  for (SessionPair& pair : prepared_->pairs) {
    for (const Batch& batch : prepared_->batches) {
      plan_digest(pair.source, requests_of(batch, Side::Source), prepared_->method);
      plan_digest(pair.target, requests_of(batch, Side::Target), prepared_->method);
    }
  }
}

VerifyReport Verification::run(const std::stop_token& stop, const TouchedRows* touched) {
  const auto started = std::chrono::steady_clock::now();
  // Gone at the end, however it ends: the sessions hold a lock on every table, in the way of whoever changes the target
  // next.
  const std::unique_ptr<Prepared> owned = std::move(prepared_);
  Prepared& prepared = *owned;
  VerifyReport& report = prepared.report;
  std::vector<SessionPair>& pairs = prepared.pairs;
  // Changes of a partitioned table may come under its root's name, which says nothing about its partitions.
  const auto holds_rows = [&prepared](const auto& entry) {
    const Table* table = prepared.source_catalog.find(entry.first);
    return table != nullptr && table->holds_rows();
  };
  if (touched != nullptr && !touched->everything() && std::ranges::all_of(touched->tables(), holds_rows)) {
    report.tables.resize(prepared.outside.size());  // they come first
    report.missing_on_target.clear();
    report.missing_on_source.clear();
    prepared.batches =
        plan(prepared.source_catalog, prepared.target_catalog, prepared.options, prepared.outside, touched, report);
  }
  const std::string source_snapshot = begin_first(pairs.front().source, prepared.options.source_snapshot);
  const std::string target_snapshot = begin_first(pairs.front().target, prepared.options.target_snapshot);
  for (std::size_t i = 1; i < pairs.size(); ++i) {
    pg::use_snapshot(pairs[i].source, source_snapshot);
    pg::use_snapshot(pairs[i].target, target_snapshot);
  }
  if (prepared.options.sequences) {
    compare_all_sequences(prepared.source_catalog, prepared.target_catalog, pairs.front(), prepared.options, report);
  }
  Comparison{pairs, prepared.batches, prepared.method, report}.run(stop);

  const auto table_equal = [](const TableComparison& table) { return table.equal; };
  const auto sequence_equal = [](const SequenceComparison& sequence) { return sequence.equal; };
  report.equal = report.missing_on_target.empty() && report.missing_on_source.empty() &&
                 std::all_of(report.tables.begin(), report.tables.end(), table_equal) &&
                 std::all_of(report.sequences.begin(), report.sequences.end(), sequence_equal);
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
  return std::move(report);
}

VerifyReport verify(const pg::ConnInfo& source, const pg::ConnInfo& target, const VerifyOptions& options,
                    std::stop_token stop) {
  try {
    return Verification::prepare(source, target, options, stop).run(stop);
  } catch (const Error&) {
    // An interrupted session fails in its own way; what happened is that we were asked to stop.
    if (!stop.stop_requested()) throw;
    throw Error{{ErrorKind::Stopped}, "verify was stopped before it had compared everything"};
  }
}

}  // namespace walferry
