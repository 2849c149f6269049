#include "engine/stream/receiver.hpp"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>

#include "engine/retry.hpp"
#include "engine/stream/unreadable.hpp"
#include "protocol/replication.hpp"

namespace walferry::stream {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using Clock = std::chrono::steady_clock;

constexpr auto status_interval = seconds{1};
constexpr auto ping_after = seconds{15};  // of silence: ask for a keepalive
constexpr auto dead_after = seconds{60};  // of silence: the connection is gone
constexpr int frames_at_once = 4096;      // before other coroutines get their turn
constexpr std::size_t worth_reading_bytes = 16U << 10U;
constexpr auto memory_patience = seconds{10};  // until a target that stands still costs disk here instead of WAL there
constexpr auto lazy_pause = milliseconds{20};  // between reads of what is left to gather
constexpr std::size_t small_window_bytes = std::size_t{256} << 10U;
constexpr auto standstill = milliseconds{2};
constexpr auto search_patience = seconds{60};  // for the row that the source could not convert
constexpr int unmapped_attempts_max = 10;

PgTime now_as_pg_time() {
  constexpr std::int64_t unix_to_pg_epoch_us = 946'684'800'000'000;
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return {std::chrono::duration_cast<std::chrono::microseconds>(now).count() - unix_to_pg_epoch_us};
}

Error other_timeline(std::uint32_t known, std::uint32_t now, Lsn shared) {
  if (now < known) {
    return Error{
        {ErrorKind::Refused, Side::Source},
        fmt::format("the source is on timeline {}, and was on {} before: this is a server that was left behind "
                    "by a fail-over. Nothing was read from it. Remedy: let --source lead to the primary",
                    now, known)};
  }
  return Error{
      {ErrorKind::Refused, Side::Source},
      fmt::format(
          "the source was failed over to timeline {}, which shares its past with timeline {} only "
          "before {}: it lost transactions that had been received or copied. Nothing was changed. Remedy: abort "
          "this migration and begin anew",
          now, known, shared.to_string())};
}

}  // namespace

Error standby_error() {
  return Error{{ErrorKind::Connection, Side::Source},
               "source: this server is a standby, and what was followed is a primary: it may be promoted yet"};
}

bool is_unmapped_file(const Error& error) {
  return error.sqlstate() == "XX000" && std::string_view{error.what()}.find("could not map file") != std::string::npos;
}

std::string start_replication_sql(int server_version, const std::string& slot, Lsn from,
                                  const std::vector<std::string>& publications) {
  const int major = server_version / 10'000;
  const int proto_version = major >= 16 ? 4 : major == 15 ? 3 : major == 14 ? 2 : 1;
  std::string names;
  for (const std::string& publication : publications) {
    if (!names.empty()) names += ',';
    names += pg::quote_name(publication);
  }
  std::string literal;
  for (const char c : names) {
    if (c == '\'') literal += c;
    literal += c;
  }
  std::string sql = fmt::format("START_REPLICATION SLOT {} LOGICAL {} (proto_version '{}', publication_names '{}'",
                                pg::quote_name(slot), from.to_string(), proto_version, literal);
  // Streaming spares the source its spill files; messages carry walferry's markers.
  if (major >= 14) sql += ", messages 'true', streaming 'on'";
  return sql + ")";
}

Receiver::Receiver(asio::any_io_executor executor, asio::thread_pool& pool, ReceiverOptions options,
                   store::Spool& spool, store::Journal& journal, Position& position, Status& status)
    : executor_(std::move(executor)),
      pool_(pool),
      options_(std::move(options)),
      spool_(spool),
      journal_(journal),
      position_(position),
      status_(status),
      assembler_(spool) {}

Awaitable<void> Receiver::run() {
  Retry retry{executor_, "the stream from the source"};
  for (;;) {
    std::optional<Error> failure;
    try {
      co_await stream();
    } catch (const Error& error) {
      failure = error;
    } catch (const ProtocolError& error) {
      failure = Error{{ErrorKind::Protocol, Side::Source},
                      fmt::format("the source's stream cannot be understood: {}", error.what())};
    }
    status_.source_connected = false;
    position_.source_behind = false;
    if (is_unmapped_file(*failure)) failure = as_passing(*failure);
    connection_.reset();
    if (is_conversion_failure(failure->sqlstate())) {
      const std::string row = co_await find_unreadable(*failure);
      failure = unreadable_error(*failure, row);
    }
    if (Clock::now() - last_heard_ < seconds{5}) retry.reset();  // it did stream: this is a new failure
    status_.last_error = LastError{failure->what(), std::chrono::system_clock::now()};
    co_await retry.after(*failure);
  }
}

// Decoding may meet a file that the catalog, as of that moment, does not know: a race of the server's own, seen right
// after a slot was made. Decoding again from the slot's position is what helps; not for ever.
Error Receiver::as_passing(const Error& failure) {
  if (std::exchange(unmapped_at_, spool_.end_lsn()) != spool_.end_lsn()) unmapped_attempts_ = 0;
  if (++unmapped_attempts_ >= unmapped_attempts_max) return failure;
  return Error{{ErrorKind::Connection, Side::Source, failure.sqlstate()}, failure.what()};
}

// "public.t (id)=(3)"; empty when it is not found.
Awaitable<std::string> Receiver::find_unreadable(Error failure) {
  const std::optional<Lsn> lsn = failed_at(failure.what());
  if (!lsn) co_return std::string{};
  Retry retry{executor_, "looking for the row that the source cannot convert"};
  const Deadline deadline = Clock::now() + search_patience;
  for (;;) {
    std::string reason;
    std::optional<Error> problem;
    try {
      std::string row = co_await read_without_conversion(*lsn, deadline);
      connection_.reset();
      co_return row;
    } catch (const Error& error) {
      problem = error;
      reason = error.what();
    } catch (const ProtocolError& error) {
      reason = error.what();
    }
    connection_.reset();
    if (!problem || !is_transient(*problem) || Clock::now() > deadline) {
      spdlog::warn("the row that the source cannot convert was not found: {}", reason);
      co_return std::string{};
    }
    co_await retry.after(*problem);
  }
}

// The same stretch of the stream again, up to the change at which the source failed.
Awaitable<std::string> Receiver::read_without_conversion(Lsn lsn, Deadline deadline) {
  co_await open_connection("SQL_ASCII");
  co_await free_slot();
  co_await connection_->start_copy_both(
      start_replication_sql(connection_->server_version(), options_.slot, started_from_, options_.publications));
  UnreadableRow row{lsn};
  for (;;) {
    const std::optional<Bytes> frame = connection_->take_copy_data();
    if (frame) {
      std::optional<std::string> found = row.look_at(*frame);
      if (found) co_return *found;
      continue;
    }
    const bool readable = co_await connection_->wait_readable(deadline);
    if (!readable) co_return std::string{};
    connection_->consume_input();
  }
}

Error Receiver::unreadable_error(const Error& failure, const std::string& row) const {
  return Error{
      {failure.kind(), failure.side(), failure.sqlstate()},
      fmt::format("a change of {} holds bytes that cannot be converted to {}, in which the stream is read: {}. "
                  "Everything before it was received. Remedy: mend such rows on the source, then `walferry abort` and "
                  "begin anew, for this change stays in the WAL; or migrate into a database with the source's encoding",
                  row.empty() ? "a table that could not be found out" : row, options_.client_encoding, failure.what())};
}

Awaitable<void> Receiver::open_connection(std::string client_encoding) {
  const pg::SessionOptions session_options{.application_name = "walferry " + options_.slot,
                                           .kind = pg::SessionKind::Replication,
                                           .client_encoding = client_encoding,
                                           .settings = {"wal_sender_timeout=60s"}};
  std::function<pg::Session()> open = [source = options_.source, session_options] {
    return pg::Session::open(source, session_options);
  };
  pg::Session session = co_await run_blocking<pg::Session>(pool_, std::move(open));
  connection_ = std::make_unique<pg::Connection>(executor_, std::move(session));
}

// An earlier walsender of ours may still hold the slot until its timeout; this state directory is locked, so it is a
// dead one.
Awaitable<void> Receiver::free_slot() {
  const std::string sql = fmt::format(
      "SELECT pg_catalog.pg_terminate_backend(active_pid) FROM pg_catalog.pg_replication_slots "
      "WHERE slot_name = {} AND active_pid IS NOT NULL AND active_pid <> pg_catalog.pg_backend_pid()",
      pg::quote_literal(options_.slot));
  co_await connection_->exec(sql);
}

Awaitable<void> Receiver::connect() {
  co_await open_connection(options_.client_encoding);
  // Asked first: a promotion in between is seen as none.
  const pg::Result recovery = co_await connection_->exec("SELECT pg_catalog.pg_is_in_recovery()");
  const bool in_recovery = recovery.flag(0, 0);
  const pg::Result system = co_await connection_->exec("IDENTIFY_SYSTEM");
  if (system.text(0, 0) != options_.system_identifier) {
    throw Error{
        {ErrorKind::Refused, Side::Source},
        fmt::format("the source is now another cluster (system identifier {}, pinned {}). Nothing was read from it. "
                    "Remedy: correct --source, or abort this migration and begin anew",
                    system.text(0, 0), options_.system_identifier)};
  }
  co_await free_slot();

  // Lag is told by the source's clock alone.
  const pg::Result clock = co_await connection_->exec(
      "SELECT (extract(epoch FROM pg_catalog.clock_timestamp() - '2000-01-01 00:00:00+00'::pg_catalog.timestamptz) "
      "* 1000000)::pg_catalog.int8");
  position_.source_time = std::max(position_.source_time, PgTime{clock.i64(0, 0)});
  position_.heard_at = Clock::now();

  spool_.discard_incomplete();
  assembler_.reset();
  backlog_ = {};
  keepalive_end_.reset();
  const Lsn from = std::max(spool_.end_lsn(), position_.target_durable);
  const SourceTimeline timeline = co_await judge_timeline(system.u32(0, 1), in_recovery, from);
  if (const auto written = Lsn::parse(system.text(0, 2)); written && from > *written) {
    throw Error{
        {ErrorKind::Refused, Side::Source},
        fmt::format(
            "the source's WAL ends at {}, before {} which had been received from it: it lost transactions, as after a "
            "fail-over to an asynchronous standby. Nothing was changed. Remedy: abort this migration and begin anew",
            written->to_string(), from.to_string())};
  }
  co_await check_slot(from, timeline.shared);
  started_from_ = from;
  co_await connection_->start_copy_both(
      start_replication_sql(connection_->server_version(), options_.slot, from, options_.publications));
  keep_timeline(timeline);
  spdlog::info("streaming from slot {} from {}", options_.slot, from ? from.to_string() : "its confirmed position");
  gathers_unread_ = connection_->gathers_unread();
  status_.source_connected = true;
  last_heard_ = Clock::now();
}

// A standby that was promoted without the last of what was received, or copied, is another source from there on; one
// that had it all goes on where it stands, but what the old primary said of its own WAL beyond that is not true of it.
Awaitable<Receiver::SourceTimeline> Receiver::judge_timeline(std::uint32_t timeline, bool in_recovery, Lsn from) {
  const auto text = journal_.get(store::journal_keys::source_timeline);
  const auto known = TimelineHistory::parse(text.value_or(""));
  SourceTimeline found{.now = {.timeline = timeline, .file = {}}, .keep = !in_recovery};
  if (in_recovery && known) throw standby_error();
  if (in_recovery) co_return found;  // a stream from a standby goes on over its promotion
  if (timeline > 1) {
    std::optional<Error> failure;
    try {
      const pg::Result answer = co_await connection_->exec(fmt::format("TIMELINE_HISTORY {}", timeline));
      found.now.file = answer.str(0, 1);
    } catch (const Error& error) {
      failure = error;
    }
    if (failure && failure->kind() != ErrorKind::Sql) throw *failure;
    if (failure) spdlog::warn("the history of the source's timeline {} cannot be read: {}", timeline, failure->what());
    if (failure && known && known->timeline == timeline) found.now = *known;
  }
  if (!known) co_return found;
  found.shared = shared_until(*known, found.now);
  Lsn needed = from;
  for (const auto& [table, copied] : journal_.copied_tables()) needed = std::max(needed, copied);
  if (needed > found.shared || timeline < known->timeline)
    throw other_timeline(known->timeline, timeline, found.shared);
  found.after = known->timeline;
  found.keep = *text != found.now.text();
  co_return found;
}

void Receiver::keep_timeline(const SourceTimeline& found) {
  if (!found.keep) return;
  if (found.after != 0) {
    forget_beyond(found.shared);
    spdlog::warn("the source is on timeline {} now, after {}: it was failed over, and had everything received so far",
                 found.now.timeline, found.after);
  }
  const auto before = journal_.get(store::journal_keys::source_timeline);
  journal_.put(store::journal_keys::source_timeline, found.now.text());
  if (found.after == 0) return;
  // A copy that ended since the look at them has not seen this (InitialCopy::record_copied).
  for (const auto& [table, copied] : journal_.copied_tables()) {
    if (copied <= found.shared) continue;
    journal_.put(store::journal_keys::source_timeline, before.value_or(""));  // the next start refuses it too
    throw other_timeline(found.after, found.now.timeline, found.shared);
  }
}

void Receiver::forget_beyond(Lsn shared) {
  const store::IdleStretch idle = journal_.idle_stretch();
  if (idle.end > shared) journal_.record_idle_stretch(idle.until(shared));
  for (Lsn* lsn : {&position_.received, &position_.applied, &position_.confirmed, &position_.idle_end,
                   &position_.source_wal_end, &status_.source_lsn}) {
    *lsn = std::min(*lsn, shared);
  }
}

// One that was made anew under the same name begins later than the one that was read.
Awaitable<void> Receiver::check_slot(Lsn from, Lsn shared) {
  const pg::Result slot = co_await connection_->exec(
      fmt::format("SELECT confirmed_flush_lsn FROM pg_catalog.pg_replication_slots WHERE slot_name = {} AND "
                  "confirmed_flush_lsn IS NOT NULL",
                  pg::quote_literal(options_.slot)));
  if (slot.rows() == 0) co_return;  // START_REPLICATION says what is wrong with it
  const Lsn begins = slot.lsn(0, 0);
  if (begins <= journal_.idle_stretch().until(shared).beyond(from)) co_return;
  throw Error{
      {ErrorKind::Refused, Side::Source},
      fmt::format(
          "the slot {} begins at {}, but everything was received to {} only: it was made anew, or somebody else "
          "read from it. Nothing was changed. Remedy: abort this migration and begin anew",
          options_.slot, begins.to_string(), from.to_string())};
}

Awaitable<void> Receiver::stream() {
  co_await connect();
  Deadline next_status = Clock::now();
  bool pinged = false;
  for (;;) {
    const int frames = take_frames();
    const auto now = Clock::now();
    if (frames > 0) {
      last_heard_ = now;
      position_.heard_at = now;
      pinged = false;
    }
    if (frames < frames_at_once && !spool_.reader_is_far()) assembler_.flush();
    note_idle();
    if (now - last_heard_ > dead_after) {
      throw Error{{ErrorKind::Connection, Side::Source}, "source: nothing was heard from the walsender for 60 s"};
    }
    const bool ping = !pinged && now - last_heard_ > ping_after;
    if (now >= next_status || reply_requested_ || confirm_now_ || ping) {
      co_await send_status(ping);
      pinged = pinged || ping;
      next_status = now + status_interval;
      gathers_unread_ = connection_->gathers_unread();
    }
    if (frames >= frames_at_once) {
      co_await asio::post(executor_, asio::use_awaitable);  // there is more: the others' turn first
      continue;
    }
    position_.source_behind = backlog_.behind();
    pace_.saw(now, status_.apply.source_transactions, position_.apply_at_work);
    const bool lazy = backlog_.any() ? gathers_unread_ : pace_.gathers();
    const Deadline soon = std::min(next_status, now + lazy_pause);
    if (lazy) {
      // Frames wait no longer than this for others, a request for an answer least of all.
      co_await pause_until(soon);
    } else {
      // The reader may come up with what it has long before the next status.
      const bool wanted_soon = assembler_.holds_complete() && !spool_.disk_only();
      co_await connection_->wait_readable(wanted_soon ? soon : next_status);
    }
    connection_->consume_input();
    if (lazy && frames == 0) backlog_.nothing_left();
  }
}

// Where the kernel keeps the window small, whole pauses would mean one window each: then a pause ends as soon as what
// waits has stopped growing.
Awaitable<void> Receiver::pause_until(Deadline deadline) {
  std::size_t waiting = 0;
  while (Clock::now() < deadline) {
    const bool small = backlog_.any() && last_pause_brought_ < small_window_bytes;
    co_await connection_->pause_until(small ? std::min(deadline, Clock::now() + standstill) : deadline);
    const std::size_t before = std::exchange(waiting, connection_->bytes_waiting());
    if (waiting > 0 && waiting == before) break;
  }
  last_pause_brought_ = waiting;
}

// Handles what is here. libpq takes 16 KB at a time; while the source is behind, more is taken only where it is worth
// it: to empty the socket would be to read eagerly again. What small transactions left there in a pause is taken whole.
int Receiver::take_frames() {
  int frames = 0;
  while (frames < frames_at_once) {
    if (const std::optional<Bytes> frame = connection_->take_copy_data()) {
      handle(*frame);
      ++frames;
    } else if (worth_reading()) {
      connection_->consume_input();
    } else {
      break;
    }
  }
  return frames;
}

bool Receiver::worth_reading() const {
  if (backlog_.any()) return gathers_unread_ && connection_->bytes_waiting() >= worth_reading_bytes;
  return pace_.gathers() && connection_->bytes_waiting() > 0;
}

void Receiver::handle(Bytes frame) {
  const replication::Frame decoded = replication::decode(frame);
  if (const auto* data = std::get_if<replication::XLogDataView>(&decoded)) {
    status_.apply.received_bytes += data->payload.size();
    position_.source_wal_end = std::max(position_.source_wal_end, data->wal_end);
    position_.source_time = std::max(position_.source_time, data->send_time);
    backlog_.saw(data->payload, data->send_time);
    assembler_.accept(data->payload);
    return;
  }
  const auto& keepalive = std::get<replication::Keepalive>(decoded);
  position_.source_wal_end = std::max(position_.source_wal_end, keepalive.wal_end);
  position_.source_time = std::max(position_.source_time, keepalive.send_time);
  reply_requested_ = reply_requested_ || keepalive.reply_requested;
  if (!spool_.reader_is_far()) assembler_.flush();
  if (assembler_.in_transaction()) return;
  backlog_.nothing_left();
  keepalive_end_ = keepalive.wal_end;
  note_idle();
}

// Every transaction that committed before a keepalive's wal_end was sent before it: once nothing of what came is held
// here, all of them are in the spool or applied.
void Receiver::note_idle() {
  if (!keepalive_end_ || assembler_.in_transaction() || assembler_.holds_complete()) return;
  position_.received = std::max(position_.received, *keepalive_end_);
  position_.idle_end = std::max(position_.idle_end, *keepalive_end_);
  if (!position_.apply_idle || spool_.has_next()) return;
  position_.applied = std::max(position_.applied, *keepalive_end_);
  position_.applied_time = position_.source_time;
  keepalive_end_.reset();
}

Lsn Receiver::confirmable() {
  const Lsn on_disk = spool_.sync();
  Lsn safe = std::max(position_.target_durable, on_disk);
  const bool all_safe = spool_.empty() || spool_.end_lsn() <= safe;
  if (all_safe && !assembler_.in_transaction()) safe = std::max(safe, position_.idle_end);
  return std::max(safe, position_.confirmed);
}

Awaitable<void> Receiver::send_status(bool ask_reply) {
  reply_requested_ = false;
  confirm_now_ = false;
  assembler_.flush();
  note_idle();
  position_.received = std::max(position_.received, spool_.end_lsn());
  spool_.write_appended_until(Clock::now() - memory_patience);
  const Lsn flush = confirmable();
  if (flush > position_.confirmed && flush > std::max(position_.target_durable, spool_.end_lsn())) {
    // Past the last transaction, on the word of a keepalive. Written down first: after a restart the slot stands past
    // what the target's position says, and only this record tells that apart from a target that lost transactions.
    const Lsn base = std::max(position_.target_durable, spool_.end_lsn());
    journal_.record_idle_stretch({.begin = base, .end = flush});
  }
  std::vector<std::byte> update;
  replication::encode({.write = std::max(position_.received, flush),
                       .flush = flush,
                       .apply = std::max(std::min(position_.applied, position_.received), Lsn{}),
                       .time = now_as_pg_time(),
                       .reply_requested = ask_reply},
                      update);
  co_await connection_->send_copy_data(update);
  position_.confirmed = flush;
}

}  // namespace walferry::stream
