#include "engine/apply/lanes.hpp"

#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <xxhash.h>

#include <algorithm>

namespace walferry::apply {
namespace {

using std::chrono::seconds;
using Clock = std::chrono::steady_clock;

constexpr auto rest_interval = seconds{60};
constexpr auto plan_interval = seconds{1};  // between additions to the plan: each is a synced write

// Keys that differ in their last digits only share a lane, and so the pages where such rows stand.
constexpr std::size_t neighbours_digits = 2;

// The same in every version of the program: after a crash it says who wrote what.
std::uint64_t hash_of(Bytes field, std::uint64_t seed) {
  return XXH64(field.data(), field.size(), seed);
}

// Of a change of one row.
struct Changed {
  RelationId relation{};
  std::optional<Xid> stream_xid;
};

std::optional<Changed> changed_by(const pgoutput::Message& message) {
  if (const auto* insert = std::get_if<pgoutput::InsertView>(&message))
    return Changed{insert->relation, insert->stream_xid};
  if (const auto* update = std::get_if<pgoutput::UpdateView>(&message))
    return Changed{update->relation, update->stream_xid};
  if (const auto* remove = std::get_if<pgoutput::DeleteView>(&message))
    return Changed{remove->relation, remove->stream_xid};
  return std::nullopt;
}

}  // namespace

Lanes::Lanes(asio::any_io_executor executor, asio::thread_pool& pool, AttachmentOptions attachment, LaneOptions options,
             const std::function<std::unique_ptr<ChangeWriter>()>& make_writer)
    : executor_(std::move(executor)),
      pool_(pool),
      attachment_(std::move(attachment)),
      options_(std::move(options)),
      plan_(options_.plan),
      splittable_(plan_.tables) {
  for (unsigned lane = 1; lane < options_.wanted; ++lane) writers_.push_back(make_writer());
}

Awaitable<void> Lanes::connect(Lsn position, const TargetTables& tables, bool replica_role) {
  if (!replica_role && options_.wanted > 1)
    spdlog::info("the apply has one lane: more need the right to set session_replication_role on the target");
  const unsigned wanted = replica_role ? options_.wanted : 1;
  positions_.assign(plan_.lanes, Lsn{});
  furthest_ = {};
  attached_ = 1;
  for (unsigned lane = 1; lane < std::max(plan_.lanes, wanted); ++lane) {
    const bool writes = co_await connect_lane(lane, tables);
    if (writes && replica_role && attached_ == lane) ++attached_;
  }
  if (wanted == 1 && plan_.lanes > 1 && position >= furthest_) plan({});
}

// Whether it can write.
Awaitable<bool> Lanes::connect_lane(unsigned lane, const TargetTables& tables) {
  std::function<Attachment()> open = [options = attachment_, lane] { return attach_lane(options, lane); };
  std::optional<Error> failure;
  std::optional<Attachment> attached;
  try {
    attached = co_await run_blocking<Attachment>(pool_, std::move(open));
  } catch (const Error& error) {
    failure = error;
  }
  if (failure) {
    if (lane < plan_.lanes) throw *failure;  // what it holds must be known
    spdlog::warn("the apply does without lane {}: {}", lane, failure->what());
    co_return false;
  }
  if (lane < plan_.lanes) positions_[lane] = attached->position;
  furthest_ = std::max(furthest_, attached->position);
  if (lane > writers_.size()) co_return false;  // of an earlier run: its position was all that is wanted of it
  ChangeWriter& writer = *writers_[lane - 1];
  co_await writer.attach(std::make_unique<pg::Connection>(executor_, std::move(attached->session)), tables,
                         attached->progress, attached->replica_role);
  writer.limit_lock_waits(true);  // nobody on the target sees that lanes wait for each other
  co_return true;
}

void Lanes::let_go() {
  for (const auto& writer : writers_) writer->detach();
  attached_ = 1;
}

void Lanes::rest() {
  resting_until_ = Clock::now() + rest_interval;
}

// Throws CannotSplit where the key did not come whole.
unsigned Lanes::lane_of_row(RelationId relation, const MappedTable& table, const pgoutput::TupleView& row) const {
  std::uint64_t hash = static_cast<std::uint32_t>(relation);
  Bytes last;
  auto column = table.columns.begin();
  for (const pgoutput::FieldView field : row) {
    if (column == table.columns.end()) break;
    if (column->key) {
      if (field.kind != pgoutput::FieldKind::Text) throw CannotSplit{"a key did not come whole"};
      hash = hash_of(last, hash);
      last = field.value;
    }
    ++column;
  }
  hash = hash_of(last.first(last.size() - std::min(last.size(), neighbours_digits)), hash);
  return static_cast<unsigned>(hash % plan_.lanes);
}

unsigned Lanes::lane_of_change(const MappedTable& table, const pgoutput::Message& message) const {
  if (const auto* insert = std::get_if<pgoutput::InsertView>(&message))
    return lane_of_row(insert->relation, table, insert->row);
  if (const auto* remove = std::get_if<pgoutput::DeleteView>(&message))
    return lane_of_row(remove->relation, table, remove->old.tuple);
  const auto& update = std::get<pgoutput::UpdateView>(message);
  const unsigned lane = lane_of_row(update.relation, table, update.row);
  if (update.old && lane_of_row(update.relation, table, update.old->tuple) != lane)
    throw CannotSplit{"a row moves to a key of another lane"};
  return lane;
}

bool Lanes::holds(const SourceTransaction& transaction, const pgoutput::Message& message, TableMap& tables) const {
  if (transaction.final_lsn >= furthest_) return false;
  const std::optional<Changed> changed = changed_by(message);
  if (!changed || !is_planned(changed->relation) || transaction.is_aborted(changed->stream_xid)) return false;
  const MappedTable& table = tables.find(changed->relation);
  try {
    return positions_.at(lane_of_change(table, message)) > transaction.final_lsn;
  } catch (const CannotSplit& contradiction) {
    throw Error{{ErrorKind::Divergence, Side::Target},
                fmt::format("lanes of the apply hold a part of transaction {} (commit LSN {}), which cannot be: in {} "
                            "{}. Remedy: abort and begin anew",
                            static_cast<std::uint32_t>(transaction.xid), transaction.final_lsn.to_string(),
                            table.name.text(), contradiction.what())};
  }
}

bool Lanes::may_split(Lsn position, Lsn durable) {
  if (attached_ == 1 || position < furthest_ || resting()) return false;
  const bool fits = plan_.lanes == attached_ && std::ranges::includes(splittable_, plan_.tables);
  if (!fits || (plan_.tables != splittable_ && Clock::now() >= next_plan_)) {
    // A crash of the target could take lane 0 back behind a lane, which holds what the plan says that it wrote.
    if (durable >= furthest_) {
      plan({attached_, splittable_});
    } else if (!fits) {
      return false;
    }
  }
  return !plan_.tables.empty();
}

void Lanes::plan(store::LanePlan plan) {
  options_.record_plan(plan);
  plan_ = std::move(plan);
  positions_.assign(plan_.lanes, Lsn{});  // no lane holds what lane 0 has not
  next_plan_ = Clock::now() + plan_interval;
}

unsigned Lanes::lane_of(const SourceTransaction& transaction, const pgoutput::Message& message,
                        TableMap& tables) const {
  const std::optional<Changed> changed = changed_by(message);
  if (!changed) throw CannotSplit{"a truncation concerns all lanes"};
  if (transaction.is_aborted(changed->stream_xid)) return 0;
  const MappedTable& table = tables.find(changed->relation);
  if (!is_planned(changed->relation)) {
    if (table.order == MappedTable::Order::Everywhere) throw CannotSplit{"a trigger or rule can see other tables"};
    return 0;
  }
  if (!table.splits) throw CannotSplit{"a table was described anew"};
  return lane_of_change(table, message);
}

Awaitable<void> Lanes::describe(const SourceTransaction& transaction, const pgoutput::RelationView& relation,
                                Bytes message, const MappedTable& own) {
  for (unsigned lane = 1; lane < attached_; ++lane)
    co_await writers_[lane - 1]->describe(transaction, relation, message);
  note_described(relation.id, own);
}

void Lanes::note_described(RelationId relation, const MappedTable& table) {
  if (table.splits) {
    splittable_.insert(relation);
  } else {
    splittable_.erase(relation);
  }
}

std::size_t Lanes::bytes() const {
  std::size_t bytes = 0;
  for (const auto& writer : writers_) {
    if (writer->begun()) bytes += writer->bytes();
  }
  return bytes;
}

std::vector<ChangeWriter*> Lanes::begun() const {
  std::vector<ChangeWriter*> begun;
  for (const auto& writer : writers_) {
    if (writer->begun()) begun.push_back(writer.get());
  }
  return begun;
}

}  // namespace walferry::apply
