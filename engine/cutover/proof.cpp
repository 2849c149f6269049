#include "engine/cutover/proof.hpp"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>

namespace walferry::cutover {
namespace {

constexpr int passes_max = 4;
// Compared in the write stop within some ten milliseconds.
constexpr std::size_t touched_rows_max = 5'000;
constexpr std::int64_t touched_bytes_max = std::int64_t{16} << 20U;  // of tables that are compared whole

// Takes `later`, a comparison of a part, into `report`, the one of everything.
void take_over(VerifyReport& report, VerifyReport later, Lsn compared_at) {
  for (TableComparison& table : later.tables) {
    const auto found = std::ranges::find(report.tables, table.name, &TableComparison::name);
    if (found == report.tables.end()) {
      report.tables.push_back(std::move(table));
    } else if (!table.keys || !table.equal) {
      *found = std::move(table);
    } else {
      found->note = fmt::format("compared at {}; {} rows touched since were compared again and are equal",
                                compared_at.to_string(), *table.keys);
    }
  }
  report.missing_on_source = std::move(later.missing_on_source);
  report.missing_on_target.insert(report.missing_on_target.end(), later.missing_on_target.begin(),
                                  later.missing_on_target.end());
  report.seconds += later.seconds;
}

bool all_equal(const VerifyReport& report) {
  return report.missing_on_source.empty() && report.missing_on_target.empty() &&
         std::ranges::all_of(report.tables, &TableComparison::equal);
}

// A snapshot sees a table that was truncated after it as empty: such a difference says nothing. `touched` is the
// complete record of what came after the comparison.
bool is_excused(const TableComparison& table, const TouchedRows& touched) {
  const TouchedTable* found = touched.find(table.name);
  return table.equal || touched.everything() || (found != nullptr && found->whole());
}

}  // namespace

std::string differing_names(const VerifyReport& report) {
  std::string names;
  const auto add = [&names](const std::string& name) { names += (names.empty() ? "" : ", ") + name; };
  for (const TableComparison& table : report.tables) {
    if (!table.equal) add(table.name.text());
  }
  for (const SequenceComparison& sequence : report.sequences) {
    if (!sequence.equal) add(sequence.name.text());
  }
  for (const QualifiedName& table : report.missing_on_target) add(table.text());
  for (const QualifiedName& table : report.missing_on_source) add(table.text());
  return names;
}

Awaitable<void> Proof::begin(asio::thread_pool& pool, Beginning with) {
  VerifyOptions& options = with.verify;
  options.outside_the_stream = false;  // that comes while nobody writes
  for (int pass = 1; pass <= passes_max; ++pass) {
    const std::shared_ptr<Moment> moment =
        co_await with.make_moment(std::chrono::steady_clock::now() + options.lock_timeout);
    // From here on the stream writes to the new record, and the one before it is complete.
    const std::shared_ptr<TouchedRows> touched = std::exchange(touched_, moment->touched_since);
    if (touched) require_excused(*touched);
    options.source_snapshot = moment->source.id();
    options.target_snapshot = moment->target_snapshot;
    std::function<VerifyReport()> compare = [&with, touched] {
      try {
        return Verification::prepare(with.source, with.target, with.verify, with.stop).run(with.stop, touched.get());
      } catch (const Error&) {
        // An interrupted session fails in its own way.
        if (!with.stop.stop_requested()) throw;
        throw Error{{ErrorKind::Stopped}, "stopped before everything was compared"};
      }
    };
    VerifyReport found = co_await run_blocking<VerifyReport>(pool, std::move(compare));
    if (!touched) {
      compared_at_ = moment->source.lsn();
      report_ = std::move(found);
    } else {
      take_over(report_, std::move(found), compared_at_);
    }
    spdlog::info("cutover: {} at {}, {} rows touched since", all_equal(report_) ? "equal" : "not equal yet",
                 moment->source.lsn().to_string(), touched_->rows());
    if (!all_equal(report_)) continue;
    co_await with.catch_up();
    if (little_is_left(with.table_bytes)) co_return;
  }
}

void Proof::require_excused(const TouchedRows& touched) const {
  const bool tables_excused =
      std::ranges::all_of(report_.tables, [&](const TableComparison& table) { return is_excused(table, touched); });
  if (tables_excused && report_.missing_on_source.empty() && report_.missing_on_target.empty()) return;
  throw Error{
      {ErrorKind::Differences},
      fmt::format("source and target differ in {}. Writes were not stopped. Remedy: `walferry verify` shows how, "
                  "once nobody writes",
                  differing_names(report_))};
}

bool Proof::little_is_left(const TableBytes& table_bytes) const {
  std::int64_t bytes = 0;
  for (const auto& [name, table] : touched_->tables()) {
    if (table.whole()) bytes += table_bytes(name);
  }
  return !touched_->everything() && touched_->rows() <= touched_rows_max && bytes <= touched_bytes_max;
}

void Proof::touch_whole(const QualifiedName& table) {
  if (touched_) touched_->touch_whole(table);
}

VerifyReport Proof::finish(Verification verification, const std::stop_token& stop) {
  take_over(report_, verification.run(stop, touched_.get()), compared_at_);
  std::ranges::sort(report_.tables, {}, &TableComparison::name);
  report_.equal = all_equal(report_);
  return std::move(report_);
}

}  // namespace walferry::cutover
