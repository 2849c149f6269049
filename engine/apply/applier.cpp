#include "engine/apply/applier.hpp"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <array>

#include "engine/apply/attachment.hpp"
#include "engine/ddl/trigger.hpp"

namespace walferry::apply {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using Clock = std::chrono::steady_clock;

// Bounds of a group while there is a backlog; over a longer wire they are a multiple of that, for the target rests some
// round trips with each group.
constexpr std::size_t group_transactions_max = 20'000;
constexpr std::size_t group_bytes_max = std::size_t{16} << 20U;
constexpr std::size_t wire_factor_max = 2;
// A group costs some round trips of rest, which must stay a small part of its age.
constexpr std::chrono::steady_clock::duration group_age_min = milliseconds{150};
constexpr std::chrono::steady_clock::duration group_age_limit = milliseconds{500};
constexpr int round_trips_per_age = 40;
// What a writer gathers before it writes: a large transaction goes in piece by piece.
constexpr std::size_t gathered_bytes_max = group_bytes_max;

// Without a backlog less than this is not worth the further round trip of a group that is split.
constexpr std::size_t split_bytes_min = std::size_t{64} << 10U;

constexpr auto durable_interval = seconds{1};
constexpr std::uint64_t positions_max = 20'000;  // target transactions, then the rows of their positions make room
constexpr auto repair_interval = seconds{5};     // between attempts while a divergence waits for a person

}  // namespace

Applier::Applier(asio::any_io_executor executor, asio::thread_pool& pool, ApplierOptions options, store::Spool& spool,
                 store::Skips& skips, stream::Position& position, Status& status)
    : executor_(executor),
      pool_(pool),
      options_(std::move(options)),
      spool_(spool),
      skips_(skips),
      position_(position),
      status_(status),
      wake_(executor),
      mended_(executor),
      homes_(std::make_shared<TableHomes>(options_.homes.known, options_.homes.record)),
      writer_(pool, gathered_bytes_max, status.apply),
      lanes_(executor, pool, attachment_options(), options_.lanes, [this] { return make_writer(); }),
      early_(
          executor, pool, attachment_options(), lanes_, options_.lanes.wanted, [this] { return make_writer(); }, spool,
          position) {
  writer_.tables().set_homes(homes_);
  writer_.tables().set_source_types(options_.source_types);
  for (ChangeWriter* writer : all_writers()) {
    writer->tables().set_copied(options_.copied, options_.homes.copied);
    if (writer != &writer_) writer->tables().share_source(writer_.tables());
    for (const auto& [table, mark] : options_.to_copy_again) writer->tables().ignore(table);
  }
  ddl_.set_secret(options_.ddl_secret);
}

AttachmentOptions Applier::attachment_options() const {
  return {options_.target, options_.migration, options_.client_encoding, options_.system_identifier};
}

std::unique_ptr<ChangeWriter> Applier::make_writer() const {
  return std::make_unique<ChangeWriter>(pool_, gathered_bytes_max, status_.apply);
}

std::vector<ChangeWriter*> Applier::all_writers() {
  std::vector<ChangeWriter*> writers{&writer_};
  for (const auto& lane : lanes_.writers()) writers.push_back(lane.get());
  for (const auto& lane : early_.writers()) writers.push_back(lane.get());
  return writers;
}

std::vector<ChangeWriter*> Applier::group_writers() {
  std::vector<ChangeWriter*> writers = lanes_.begun();
  writers.insert(writers.begin(), &writer_);
  return writers;
}

void Applier::record(std::shared_ptr<TouchedRows> touched) {
  // What was applied early is in no record: it is rolled back, and applied and recorded at its commit.
  if (touched) early_.abandon_soon();
  for (ChangeWriter* writer : all_writers()) writer->record(touched);
}

void Applier::stop() {
  stopping_ = true;
  try_again();
}

void Applier::interrupt() {
  for (ChangeWriter* writer : all_writers()) {
    if (writer->attached()) writer->connection().interrupt_lent();
  }
}

Awaitable<void> Applier::run() {
  Retry retry{executor_, "the apply to the target"};
  Lsn failed_at;
  while (!stopping_ && !reached_until()) {
    std::optional<Error> failure;
    std::optional<StopPoint> point;
    try {
      co_await apply();
    } catch (const Stop& stop) {
      failure = stop;
      point = stop.point();
    } catch (const Error& error) {
      failure = error;
    } catch (const ProtocolError& error) {
      failure = Error{{ErrorKind::Protocol, Side::Source},
                      fmt::format("the source's stream cannot be understood: {}", error.what())};
    } catch (const NetChangesRefused& refused) {
      refuse_net_changes(refused);
    } catch (const CannotSplit& cause) {
      refuse_split(cause);
    }
    if (failure && group_.split) refuse_split(*failure);
    let_go();
    // Stopped, arrived, the source's connection broke a transaction off, or net changes were refused.
    if (!failure) continue;
    if (std::exchange(failed_at, committed_) != committed_) retry.reset();  // it did apply: this is a new failure
    if (failure->kind() != ErrorKind::Divergence) {
      status_.last_error = LastError{failure->what(), std::chrono::system_clock::now()};
      co_await retry.after(*failure);
      continue;
    }
    if (!stand_still(*failure, point)) continue;
    if (options_.give_up_on_divergence) throw *failure;
    co_await mended_.wait_until(Clock::now() + repair_interval);
  }
}

// G3: the stream stands still at this point, the receiver goes on spooling, and a repair on the target is noticed.
// False: what stands before it in the same group is applied first.
bool Applier::stand_still(const Error& failure, const std::optional<StopPoint>& point) {
  const Lsn isolated = point ? point->commit_lsn : Lsn{};
  if (isolated && isolated_ != isolated) {
    isolated_ = isolated;
    return false;
  }
  status_.last_error = LastError{failure.what(), std::chrono::system_clock::now()};
  status_.apply_stopped = true;
  status_.stop = point;
  if (point) skips_.record_stop(*point);
  if (on_stop_) on_stop_();
  if (reported_ != failure.what()) spdlog::error("apply stopped: {}", failure.what());
  reported_ = failure.what();
  return true;
}

// What the net changes came from is applied once more, one by one: if that fails too, it says at which change.
void Applier::refuse_net_changes(const NetChangesRefused& refused) {
  spdlog::info("changes to {} are applied one by one: together they were refused: {}", refused.table().text(),
               refused.what());
  one_by_one_until_ = std::max(one_by_one_until_, group_.end_lsn);
  if (transaction_) one_by_one_until_ = std::max(one_by_one_until_, Lsn{transaction_->final_lsn.value + 1});
  writer_.distrust(refused.table());
  if (group_.split) lanes_.rest();
}

// The group is written again, by lane 0.
void Applier::refuse_split(const std::exception& cause) {
  spdlog::info("the apply has one lane for a while: {}", cause.what());
  lanes_.rest();
}

// Everything of the connection and of what was on its way.
void Applier::let_go() {
  writer_.detach();
  early_.let_go();
  lanes_.let_go();
  transaction_.reset();
  group_ = {};
  deferred_.clear();
  block_.reset();
  position_.apply_idle = false;
  status_.target_connected = false;
}

Awaitable<void> Applier::connect() {
  const auto options = std::make_shared<const AttachmentOptions>(attachment_options());
  std::function<Attachment()> open = [options] { return attach(*options); };
  Attachment attached = co_await run_blocking<Attachment>(pool_, std::move(open));
  if (attached.position < position_.target_durable) {
    throw Error{
        {ErrorKind::Refused, Side::Target},
        fmt::format(
            "the target stands at {}, but it had reported {} as durable: it lost transactions, as after a fail-over "
            "to an asynchronous standby. Nothing was applied. Remedy: abort and begin anew",
            attached.position.to_string(), position_.target_durable.to_string())};
  }
  homes_->begin(options_.homes.copied, attached.tables.catalog);
  co_await lanes_.connect(attached.position, attached.tables, attached.replica_role);
  progress_ = attached.progress;
  committed_ = attached.position;
  position_.target_durable = attached.position;
  position_.applied = attached.position;
  co_await writer_.attach(std::make_unique<pg::Connection>(executor_, std::move(attached.session)),
                          std::move(attached.tables), progress_, attached.replica_role);
  const auto wire_milliseconds = std::chrono::duration_cast<milliseconds>(writer_.round_trip()).count();
  wire_factor_ = std::clamp(static_cast<std::size_t>(wire_milliseconds), std::size_t{1}, wire_factor_max);
  writer_.gather(wire_factor_ * gathered_bytes_max);
  group_age_max_ = std::min(group_age_min + round_trips_per_age * writer_.round_trip(), group_age_limit);
  writer_.pipeline().prepare("flush", progress_.flush_sql());
  co_await writer_.pipeline().settle();
  spool_.rewind();
  rewound_ = true;
  status_.target_connected = true;
  spdlog::info("applying to the target from {}", committed_.to_string());
}

Awaitable<void> Applier::apply() {
  co_await connect();
  at_work_since_ = Clock::now();
  for (;;) {
    if (spool_.take_broken_off())
      co_return;  // the source sends the unfinished transaction again: begin at the last commit
    if (at_boundary()) {
      if (writer_.begun() && (stopping_ || !backlog() || group_is_full())) co_await commit_group();
      if (stopping_ || reached_until()) co_return;
    } else if (stopping_) {
      co_return;  // inside a large transaction: the server rolls back, the next run applies it whole
    }
    if (Clock::now() >= next_durable_check_ && at_boundary()) {
      if (writer_.begun()) co_await commit_group();
      co_await check_durable();
    }
    early_.look_after();
    writer_.limit_lock_waits(early_.begun());
    block_ = spool_.next();
    if (!block_ && at_boundary() && writer_.begun()) {
      co_await await_more(writer_.begun_at() + group_age_max_);  // the source is behind: there is more to come
      continue;
    }
    if (!block_ && at_boundary() && may_apply_early()) {
      // The target holds all that was received before: what has arrived of the transactions in progress goes ahead.
      co_await early_.apply_next();
      continue;
    }
    if (!block_) {
      co_await rest();
      continue;
    }
    position_.apply_idle = false;
    read_from(block_);
    if (block_->kind == store::Block::Kind::StreamedCommit) {
      co_await apply_streamed();
    } else {
      co_await apply_block();
    }
    block_.reset();
    co_await asio::post(executor_, asio::use_awaitable);  // the others' turn: gathering waits for nothing
  }
}

bool Applier::may_apply_early() {
  // What a lane holds already it must not meet again.
  return writer_.replica_role() && !options_.until && !stopping_ && early_.ready() && !lanes_.ahead_of(committed_);
}

// Nothing to read: the target holds everything that was received, unless a transaction is still arriving.
Awaitable<void> Applier::rest() {
  if (at_boundary()) {
    position_.apply_idle = true;
    position_.applied = std::max(position_.applied, position_.idle_end);
    if (!backlog()) position_.applied_time = std::max(position_.applied_time, position_.source_time);
    if (reached_until()) co_return;
  }
  co_await await_more(std::max(next_durable_check_, Clock::now() + milliseconds{10}));
}

Awaitable<void> Applier::await_more(Deadline deadline) {
  note_work();
  co_await wake_.wait_until(deadline);
  at_work_since_ = Clock::now();
}

void Applier::note_work() {
  const Deadline now = Clock::now();
  position_.apply_at_work += now - std::exchange(at_work_since_, now);
}

Awaitable<void> Applier::apply_block() {
  Bytes rest = block_->messages;
  const std::byte* const last_commit_end = block_->messages.data() + block_->complete_bytes;
  while (!rest.empty()) {
    const Bytes payload = store::take_message(rest);
    const pgoutput::Message message = pgoutput::decode(payload, {});
    if (rewound_ && std::get_if<pgoutput::RelationView>(&message) == nullptr) begin_after_rewind(message);
    if (!deferred_.empty()) co_await describe_deferred(message);
    if (!transaction_ && is_change(payload)) throw ProtocolError{"a change outside a transaction"};
    const Applied applied = apply_change(message, payload);
    if (!applied.complete()) co_await complete_change(applied, message, payload);
    if (applied.taken != Taken::No) continue;
    const auto* begin = std::get_if<pgoutput::Begin>(&message);
    if (begin != nullptr && is_behind_until(begin->final_lsn)) {
      if (writer_.begun()) co_await commit_group();
      until_passed_ = true;
      co_return;
    }
    const bool whole = begin == nullptr || payload.data() < last_commit_end || spool_.end_lsn() > begin->final_lsn;
    if (begin != nullptr && writer_.begun() && (!whole || begin->final_lsn == isolated_)) {
      // A transaction whose end is not here yet, or that cannot be applied, must not hold back those before it.
      co_await commit_group();
    }
    co_await apply_control(message, payload);
    if (!at_boundary() || !writer_.begun()) continue;
    // After a schema change at once: a new enum value can be used only by the transactions that follow. After a marker
    // because it is waited for.
    const bool at_once = group_.ddl || !group_.markers.empty();
    if ((rest.data() >= last_commit_end && !backlog()) || group_is_full() || at_once) co_await commit_group();
  }
}

Applier::Applied Applier::apply_change(const pgoutput::Message& message, Bytes payload) {
  ChangeWriter* writer = &writer_;
  if (!transaction_) return {Taken::No, writer};
  if (transaction_->counts() && is_change(payload)) {
    if (lanes_.holds(*transaction_, message, writer_.tables())) return {Taken::Yes, writer};
    begin_group(message);
    if (group_.split) {
      const unsigned lane = lanes_.lane_of(*transaction_, message, writer_.tables());
      if (lane != 0) writer = &lanes_.writer(lane);
    }
  }
  return {writer->take(*transaction_, message, payload), writer};
}

Awaitable<void> Applier::complete_change(Applied applied, const pgoutput::Message& message, Bytes payload) {
  ChangeWriter& writer = *applied.writer;
  if (applied.taken == Taken::Behind) co_await writer.write_behind(*transaction_, message, payload);
  if (group_.split && writer.must_write()) {
    co_await write_together(executor_, group_writers());
  } else if (writer.needs_relief()) {
    co_await writer.relieve();
  }
}

// At its first change it is decided whether the group is split.
void Applier::begin_group(const pgoutput::Message& first) {
  if (writer_.begun()) return;
  const bool large = backlog() || transaction_->streamed || block_->messages.size() >= split_bytes_min;
  group_.split = large && !transaction_->one_by_one && !early_.begun() &&
                 std::get_if<pgoutput::TruncateView>(&first) == nullptr &&
                 lanes_.may_split(committed_, position_.target_durable);
  if (!group_.split) return;
  writer_.limit_lock_waits(true);
  writer_.begin();
}

void Applier::read_from(std::shared_ptr<const void> owner) {
  for (const auto& lane : lanes_.writers()) lane->read_from(owner);
  writer_.read_from(std::move(owner));
}

bool Applier::group_is_full() const {
  return group_.transactions >= wire_factor_ * group_transactions_max ||
         writer_.bytes() + lanes_.bytes() >= wire_factor_ * group_bytes_max ||
         Clock::now() - writer_.begun_at() >= group_age_max_;
}

// A transaction that was streamed while in progress stands in the spool as chunks, and becomes a group of its own; what
// was applied of it already is committed with the rest.
Awaitable<void> Applier::apply_streamed() {
  rewound_ = false;
  if (writer_.begun()) co_await commit_group();
  const store::StreamedCommit& commit = block_->streamed;
  if (is_behind_until(commit.commit_lsn)) {
    until_passed_ = true;
    co_return;
  }
  begin_transaction(commit.xid, commit.commit_lsn);
  transaction_->streamed = true;
  transaction_->aborted = commit.aborted;
  std::ranges::sort(transaction_->aborted);
  if (early_.holds(commit.stream)) {
    bool completed = false;
    if (transaction_->counts() && !transaction_->one_by_one) {
      const bool written = co_await early_.complete(commit);
      completed = written;
    }
    if (completed) {
      co_await commit_early(commit);
      co_return;
    }
    early_.abandon("its commit is not to be applied as it is");
  }
  for (std::uint64_t chunk = 0; chunk < commit.chunks && transaction_->counts(); ++chunk) {
    const store::Chunk held = spool_.stream_chunk(commit.stream, chunk);
    read_from(held);
    Bytes rest = *held;
    while (!rest.empty()) {
      const Bytes payload = store::take_message(rest);
      const pgoutput::Message message = pgoutput::decode(payload, {.in_stream = true});
      if (!deferred_.empty()) co_await describe_deferred(message);
      const Applied applied = apply_change(message, payload);
      if (!applied.complete()) co_await complete_change(applied, message, payload);
      if (applied.taken == Taken::No) co_await apply_control(message, payload);
    }
    if (stopping_) co_return;  // in the middle: rolled back with the connection, applied whole by the next run
  }
  co_await end_transaction(commit.end_lsn, commit.commit_time);
  if (writer_.begun()) co_await commit_group();
}

// Everything of the transaction is written on the other connection: it commits there, and for that the position goes
// from hand to hand. Whatever fails from here on ends both connections, and the target says what it holds.
Awaitable<void> Applier::commit_early(const store::StreamedCommit& commit) {
  transaction_.reset();
  group_.end_lsn = commit.end_lsn;
  group_.commit_time = commit.commit_time;
  group_.transactions = 1;
  const bool split = co_await early_.commit(writer_, progress_, commit);
  ++status_.apply.early_transactions;
  if (split) ++status_.apply.split_transactions;
  note_committed();
}

Awaitable<void> Applier::apply_control(const pgoutput::Message& message, Bytes payload) {
  if (const auto* begin = std::get_if<pgoutput::Begin>(&message)) {
    begin_transaction(begin->xid, begin->final_lsn);
  } else if (const auto* commit = std::get_if<pgoutput::Commit>(&message)) {
    co_await end_transaction(commit->end_lsn, commit->commit_time);
  } else if (const auto* relation = std::get_if<pgoutput::RelationView>(&message)) {
    // A rolled-back subtransaction's description is not valid outside it; the source described the relation anew.
    if (transaction_ && transaction_->is_aborted(relation->stream_xid)) co_return;
    if (transaction_ && transaction_->counts()) {
      deferred_.erase(relation->id);
      co_await describe(*relation, payload);
    } else {
      deferred_[relation->id].assign(payload.begin(), payload.end());
    }
  } else if (const auto* note = std::get_if<pgoutput::LogicalMessageView>(&message)) {
    // Other programs' messages change no rows.
    const bool aborted = transaction_ && transaction_->is_aborted(note->stream_xid);
    if (!aborted && transaction_ && transaction_->counts() && note->prefix == ddl::message_prefix)
      co_await pass_ddl(*note);
    if (note->prefix != "walferry" || !transaction_) co_return;
    if (!transaction_->skipped) {
      group_.markers.emplace_back(as_text(note->content));
    } else if (on_marker_) {
      on_marker_({.content = std::string{as_text(note->content)}, .end_lsn = committed_});  // the target holds it
    }
  }
}

// The oldest retained block may begin inside a transaction whose first blocks were released, because the target holds
// it.
void Applier::begin_after_rewind(const pgoutput::Message& message) {
  rewound_ = false;
  if (std::get_if<pgoutput::Begin>(&message) == nullptr)
    transaction_ = SourceTransaction{.skipped = true, .tail = true};
}

void Applier::begin_transaction(Xid xid, Lsn final_lsn) {
  if (transaction_) throw ProtocolError{"Begin inside a transaction"};
  ddl_.reset();
  const bool skipped = final_lsn < committed_;
  transaction_ = SourceTransaction{.xid = xid,
                                   .final_lsn = final_lsn,
                                   .skipped = skipped,
                                   .left_out = !skipped && skips_.contains(StopPoint::What::Transaction, final_lsn),
                                   .one_by_one = final_lsn < one_by_one_until_};
  if (transaction_->left_out) {
    writer_.touch_everything();  // what it would have changed differs from now on
    spdlog::warn("transaction {} (commit LSN {}) is left out, as a person said", static_cast<std::uint32_t>(xid),
                 final_lsn.to_string());
  }
}

Awaitable<void> Applier::end_transaction(Lsn end_lsn, PgTime commit_time) {
  if (!transaction_) throw ProtocolError{"Commit outside a transaction"};
  const bool skipped = transaction_->skipped;
  if (transaction_->tail && end_lsn > committed_)
    throw ProtocolError{"the spool begins inside a transaction that is not applied"};
  transaction_.reset();
  if (skipped) co_return;
  group_.end_lsn = end_lsn;
  group_.commit_time = commit_time;
  ++group_.transactions;
  // A transaction without rows for the target (skipped tables, messages only) still moves the position.
  writer_.begin();
}

Awaitable<void> Applier::describe(const pgoutput::RelationView& relation, Bytes payload) {
  co_await writer_.describe(*transaction_, relation, payload);
  co_await lanes_.describe(*transaction_, relation, payload, writer_.tables().find(relation.id));
}

Awaitable<void> Applier::commit_group() {
  if (group_.split) {
    co_await commit_split_group();
  } else {
    co_await writer_.commit(group_.end_lsn);
  }
  note_committed();
}

// Nothing is committed before all outcomes are known, and lane 0 last: where it stands the others have been (Lanes).
Awaitable<void> Applier::commit_split_group() {
  const std::vector<ChangeWriter*> lanes = lanes_.begun();
  co_await settle_together(executor_, group_writers());
  std::vector<Awaitable<void>> commits;
  for (ChangeWriter* lane : lanes) commits.push_back(lane->commit(group_.end_lsn));
  co_await together(executor_, std::move(commits));
  co_await writer_.commit(group_.end_lsn);
  if (lanes.empty()) co_return;
  lanes_.committed(group_.end_lsn);
  ++status_.apply.split_transactions;
}

// The target holds the group.
void Applier::note_committed() {
  const Group done = std::exchange(group_, {});
  note_work();
  committed_ = done.end_lsn;
  position_.applied = std::max(position_.applied, done.end_lsn);
  position_.applied_time = std::max(position_.applied_time, done.commit_time);
  status_.apply.source_transactions += done.transactions;
  ++status_.apply.target_transactions;
  if (status_.apply_stopped) {
    status_.apply_stopped = false;
    status_.stop.reset();
    skips_.clear_stop();
    reported_.clear();
    spdlog::info("apply goes on: what had stopped it is behind it");
  } else if (skips_.stop() && skips_.stop()->commit_lsn < committed_) {
    skips_.clear_stop();  // of an earlier run
  }
  for (const std::string& content : done.markers) {
    if (on_marker_) on_marker_({.content = content, .end_lsn = done.end_lsn});
  }
}

Awaitable<void> Applier::check_durable() {
  next_durable_check_ = Clock::now() + durable_interval;
  if (committed_ <= position_.target_durable) co_return;
  const std::string position = committed_.to_string();
  const std::array<const char*, 1> parameters{position.c_str()};
  writer_.pipeline().send_control("flush", parameters, Operation::Advance);
  co_await writer_.pipeline().settle();
  position_.target_durable = committed_;
  spool_.release(position_.target_durable);
  if (on_durable_) on_durable_();
  if (status_.apply.target_transactions - tidied_at_ >= positions_max) co_await tidy_positions();
}

// Not on the connection of the apply: whoever reads the table, such as a backup of the target, must not end that. Where
// it is not done, it is tried again after as many more.
Awaitable<void> Applier::tidy_positions() {
  tidied_at_ = status_.apply.target_transactions;
  std::function<void()> tidy = [options = attachment_options()] {
    try {
      pg::Session session = pg::Session::open(options.target, {.application_name = "walferry"});
      Progress::tidy(session, options.migration);
    } catch (const Error& error) {
      spdlog::info("the table that keeps the position on the target was not emptied: {}. It is tried again later",
                   error.what());
    }
  };
  co_await run_blocking<void>(pool_, std::move(tidy));
}

// A change of a transaction that counts is about to be applied: what it needs of the descriptions put aside.
Awaitable<void> Applier::describe_deferred(const pgoutput::Message& message) {
  if (!transaction_ || !transaction_->counts()) co_return;
  std::vector<RelationId> needed;
  if (const auto* insert = std::get_if<pgoutput::InsertView>(&message)) {
    needed = {insert->relation};
  } else if (const auto* update = std::get_if<pgoutput::UpdateView>(&message)) {
    needed = {update->relation};
  } else if (const auto* remove = std::get_if<pgoutput::DeleteView>(&message)) {
    needed = {remove->relation};
  } else if (const auto* truncate = std::get_if<pgoutput::TruncateView>(&message)) {
    needed.assign(truncate->relations.begin(), truncate->relations.end());
  }
  for (const RelationId id : needed) {
    const auto found = deferred_.find(id);
    if (found == deferred_.end()) continue;
    const std::vector<std::byte> description = std::move(found->second);
    deferred_.erase(found);
    const pgoutput::Message relation = pgoutput::decode(description, {});
    co_await describe(std::get<pgoutput::RelationView>(relation), description);
  }
}

}  // namespace walferry::apply
