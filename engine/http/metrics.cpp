#include "engine/http/metrics.hpp"

#include <prometheus/client_metric.h>
#include <prometheus/metric_family.h>
#include <prometheus/metric_type.h>
#include <prometheus/text_serializer.h>

#include <array>
#include <chrono>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/http/status_json.hpp"
#include "engine/progress_line.hpp"

namespace walferry::http {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;
using Labels = std::vector<ClientMetric::Label>;

constexpr std::array wal_states{"reserved", "extended", "unreserved", "lost"};

// The families of one scrape, in the order in which they are added.
class Families {
 public:
  void family(std::string name, std::string help, MetricType type) {
    MetricFamily& added = families_.emplace_back();
    added.name = std::move(name);
    added.help = std::move(help);
    added.type = type;
  }

  // Adds a sample to the family opened last.
  void sample(double value, Labels labels = {}) {
    MetricFamily& current = families_.back();
    ClientMetric& metric = current.metric.emplace_back();
    metric.label = std::move(labels);
    for (ClientMetric::Label& label : metric.label) label.value = valid_utf8(label.value);
    if (current.type == MetricType::Counter) {
      metric.counter.value = value;
    } else {
      metric.gauge.value = value;
    }
  }

  void gauge(std::string name, std::string help, double value, Labels labels = {}) {
    family(std::move(name), std::move(help), MetricType::Gauge);
    sample(value, std::move(labels));
  }

  void counter(std::string name, std::string help, double value) {
    family(std::move(name), std::move(help), MetricType::Counter);
    sample(value);
  }

  [[nodiscard]] std::string serialize() {
    // A family without samples has nothing to say.
    std::erase_if(families_, [](const MetricFamily& family) { return family.metric.empty(); });
    return prometheus::TextSerializer{}.Serialize(families_);
  }

 private:
  std::vector<MetricFamily> families_;
};

double flag(bool value) {
  return value ? 1 : 0;
}

template <typename Integer>
double real(Integer value) {
  return static_cast<double>(value);
}

double unix_seconds(std::chrono::system_clock::time_point time) {
  return std::chrono::duration<double>(time.time_since_epoch()).count();
}

// Zero means "none" for an LSN, so it has no sample.
void lsn_sample(Families& families, std::string_view position, Lsn lsn) {
  if (!lsn) return;
  families.sample(real(lsn.value), {{"position", std::string{position}}});
}

void add_general(Families& families, const Status& status) {
  families.gauge("walferry_build_info", "Version of the running program.", 1, {{"version", WALFERRY_VERSION}});
  families.gauge("walferry_migration_info", "Which migration this is; source and target without secrets.", 1,
                 {{"migration", status.migration}, {"source", status.source}, {"target", status.target}});
  families.gauge("walferry_start_timestamp_seconds", "When this process started, as Unix time.",
                 unix_seconds(status.started_at));
  families.family("walferry_phase", "1 for the phase that the migration is in, 0 for all others.", MetricType::Gauge);
  for (int value = 0; value <= static_cast<int>(Phase::Aborted); ++value) {
    const auto phase = static_cast<Phase>(value);
    families.sample(flag(status.phase == phase), {{"phase", std::string{to_string(phase)}}});
  }
  families.family("walferry_connected", "Whether the side is connected.", MetricType::Gauge);
  families.sample(flag(status.source_connected), {{"side", "source"}});
  families.sample(flag(status.target_connected), {{"side", "target"}});
  families.gauge("walferry_apply_stopped", "1 when a change could not be applied and a person must act.",
                 flag(status.apply_stopped));
  if (status.last_error) {
    families.gauge("walferry_last_error_timestamp_seconds", "When the last error happened, as Unix time.",
                   unix_seconds(status.last_error->at));
  }
}

void add_stream(Families& families, const Status& status) {
  families.gauge("walferry_lag_bytes", "WAL of the source that has not been applied on the target.",
                 real(status.lag_bytes));
  families.gauge("walferry_lag_seconds", "How old the newest applied change is, by the source's clock.",
                 status.lag_seconds);
  families.family("walferry_lsn_bytes", "Positions in the source's write-ahead log, as byte numbers.",
                  MetricType::Gauge);
  lsn_sample(families, "source", status.source_lsn);
  lsn_sample(families, "received", status.received_lsn);
  lsn_sample(families, "spooled", status.spooled_lsn);
  lsn_sample(families, "applied", status.applied_lsn);
  lsn_sample(families, "confirmed", status.confirmed_lsn);
  families.gauge("walferry_spool_bytes", "Changes kept on disk.", real(status.spool_bytes));
  families.gauge("walferry_queue_bytes", "Changes kept in memory.", real(status.queue_bytes));
  families.counter("walferry_received_bytes_total", "Replication data received from the source.",
                   real(status.apply.received_bytes));
}

void add_slot(Families& families, const SlotStatus& slot) {
  families.gauge("walferry_slot_active", "Whether a walsender holds the slot.", flag(slot.active));
  families.gauge("walferry_slot_retained_wal_bytes", "WAL that the source must keep for the slot.",
                 real(slot.retained_wal_bytes));
  if (slot.safe_wal_size) {
    families.gauge("walferry_slot_safe_wal_bytes", "WAL that can still be written before the slot is lost.",
                   real(*slot.safe_wal_size));
  }
  families.family("walferry_slot_lsn_bytes", "Positions of the slot, as byte numbers.", MetricType::Gauge);
  lsn_sample(families, "restart", slot.restart_lsn);
  lsn_sample(families, "confirmed_flush", slot.confirmed_flush_lsn);
  families.family("walferry_slot_wal_status", "1 for the slot's wal_status, 0 for all others.", MetricType::Gauge);
  for (const char* state : wal_states) families.sample(flag(slot.wal_status == state), {{"status", state}});
}

void add_copy(Families& families, const Status& status) {
  const CopyTotals totals = copy_totals(status);
  families.gauge("walferry_copy_expected_bytes", "Heap and TOAST of all tables: what the copy is estimated to move.",
                 real(totals.bytes_total));
  families.gauge("walferry_copy_copied_bytes", "COPY data moved so far, of all tables.", real(totals.bytes_copied));
  families.gauge("walferry_copy_copied_rows", "Rows copied so far, of all tables.", real(totals.rows_copied));
  families.gauge("walferry_copy_done_ratio", "Share of the copy that is done, 0 to 1.", totals.fraction_done);
  if (status.eta_seconds) {
    families.gauge("walferry_copy_eta_seconds", "Estimated time until the copy is complete.", *status.eta_seconds);
  }
  families.family("walferry_tables", "Number of tables in each state.", MetricType::Gauge);
  for (int value = 0; value <= static_cast<int>(TableState::Ready); ++value) {
    const auto state = static_cast<TableState>(value);
    double tables = 0;
    for (const TableStatus& table : status.tables) tables += flag(table.state == state);
    families.sample(tables, {{"state", std::string{to_string(state)}}});
  }
}

void add_tables(Families& families, const Status& status) {
  const auto for_each_table = [&](auto value_of) {
    for (const TableStatus& table : status.tables) {
      families.sample(value_of(table), {{"schema", table.name.schema}, {"table", table.name.name}});
    }
  };
  families.family("walferry_table_expected_bytes", "Heap and TOAST of the table on the source.", MetricType::Gauge);
  for_each_table([](const TableStatus& table) { return real(table.bytes_total); });
  families.family("walferry_table_copied_bytes", "COPY data of the table moved so far.", MetricType::Gauge);
  for_each_table([](const TableStatus& table) { return real(table.copied->bytes.load(std::memory_order_relaxed)); });
  families.family("walferry_table_copied_rows", "Rows of the table copied so far.", MetricType::Gauge);
  for_each_table([](const TableStatus& table) { return real(table.copied->rows.load(std::memory_order_relaxed)); });
}

void add_apply(Families& families, const ApplyCounters& apply) {
  families.family("walferry_apply_changes_total", "Changes applied on the target.", MetricType::Counter);
  families.sample(real(apply.inserts), {{"kind", "insert"}});
  families.sample(real(apply.updates), {{"kind", "update"}});
  families.sample(real(apply.deletes), {{"kind", "delete"}});
  families.sample(real(apply.truncates), {{"kind", "truncate"}});
  families.counter("walferry_apply_source_transactions_total", "Source transactions applied on the target.",
                   real(apply.source_transactions));
  families.counter("walferry_apply_target_transactions_total", "Groups committed on the target.",
                   real(apply.target_transactions));
  families.counter("walferry_apply_early_transactions_total",
                   "Source transactions that were written while they were in progress.",
                   real(apply.early_transactions));
  families.counter("walferry_apply_split_transactions_total", "Groups that several lanes committed on the target.",
                   real(apply.split_transactions));
}

}  // namespace

std::string metrics_text(const Status& status) {
  Families families;
  add_general(families, status);
  add_stream(families, status);
  if (status.slot) add_slot(families, *status.slot);
  add_copy(families, status);
  add_apply(families, status.apply);
  add_tables(families, status);
  return families.serialize();
}

}  // namespace walferry::http
