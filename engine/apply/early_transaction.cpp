#include "engine/apply/early_transaction.hpp"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include "engine/ddl/trigger.hpp"

namespace walferry::apply {
namespace {

using std::chrono::seconds;
using Clock = std::chrono::steady_clock;

// Little is written at a time: meanwhile what was committed waits. But some round trips with each piece must not take
// longer than the piece.
constexpr std::size_t piece_bytes_min = std::size_t{1} << 20U;
constexpr std::size_t piece_bytes_max = std::size_t{8} << 20U;
constexpr std::size_t piece_bytes_per_millisecond = std::size_t{2} << 20U;  // of round trip

std::size_t piece_bytes(std::chrono::steady_clock::duration round_trip) {
  const auto milliseconds = std::chrono::duration_cast<std::chrono::milliseconds>(round_trip).count();
  return std::clamp(static_cast<std::size_t>(milliseconds) * piece_bytes_per_millisecond, piece_bytes_min,
                    piece_bytes_max);
}

// What was gathered so far goes to the target when nothing more has arrived for so long.
constexpr auto gathering_rest = std::chrono::milliseconds{100};
// A transaction that rests would only hold locks on the target, and its vacuum back.
constexpr auto rest_max = seconds{30};

}  // namespace

EarlyTransaction::EarlyTransaction(asio::any_io_executor executor, asio::thread_pool& pool, AttachmentOptions options,
                                   std::function<TargetTables()> read_target,
                                   const std::map<QualifiedName, Lsn>& copied, store::Spool& spool,
                                   const stream::Position& position, ApplyCounters& counts)
    : executor_(std::move(executor)),
      pool_(pool),
      options_(std::move(options)),
      spool_(spool),
      position_(position),
      writer_(pool, std::move(read_target), piece_bytes_min, counts) {
  writer_.tables().set_copied(copied);
}

// The transaction that has more to write: the one at hand, or else the first that may be begun.
std::optional<store::Arriving> EarlyTransaction::next() const {
  for (const store::Arriving& arriving : spool_.arriving()) {
    if (arriving.chunks == 0 || refused_.contains(arriving.stream)) continue;
    if (arriving.partly_rolled_back || unwanted_) continue;
    if (!stream_) return arriving;
    if (stream_ == arriving.stream) return arriving.chunks > chunks_ ? std::optional{arriving} : std::nullopt;
  }
  return std::nullopt;
}

bool EarlyTransaction::gathering_rests() const {
  return stream_ && unsettled_ && Clock::now() - written_at_ > gathering_rest;
}

bool EarlyTransaction::ready() const {
  return next().has_value() || gathering_rests();
}

Awaitable<void> EarlyTransaction::apply_next() {
  const std::optional<store::Arriving> arriving = next();
  if (!arriving && !gathering_rests()) co_return;
  if (!stream_) {
    stream_ = arriving->stream;
    transaction_ = {.xid = arriving->xid, .streamed = true, .in_progress = true};
    chunks_ = 0;
    unsettled_ = false;
  }
  // Its commit will stand behind everything that the source has sent.
  transaction_.final_lsn = position_.source_wal_end;
  std::optional<std::string> failure;
  try {
    if (!writer_.attached()) co_await connect();
    if (arriving) co_await write_chunk(chunks_);
    if (!arriving) co_await writer_.settle();
  } catch (const boost::system::system_error&) {
    throw;  // cancelled
  } catch (const std::runtime_error& refused) {
    failure = refused.what();
  }
  if (failure) {
    abandon(*failure);
    co_return;
  }
  unsettled_ = arriving.has_value();
  if (!arriving) co_return;
  ++chunks_;
  written_at_ = Clock::now();
}

Awaitable<void> EarlyTransaction::connect() {
  std::function<Attachment()> open = [options = options_] { return attach_beside(options); };
  Attachment attached = co_await run_blocking<Attachment>(pool_, std::move(open));
  co_await writer_.attach(std::make_unique<pg::Connection>(executor_, std::move(attached.session)),
                          std::move(attached.tables), attached.progress, attached.replica_role);
  writer_.gather(piece_bytes(writer_.round_trip()));
}

Awaitable<void> EarlyTransaction::write_chunk(std::uint64_t chunk) {
  const store::Chunk held = spool_.stream_chunk(*stream_, chunk);
  writer_.read_from(held);
  writer_.limit_lock_waits(true);
  Bytes rest = *held;
  while (!rest.empty()) {
    const Bytes payload = store::take_message(rest);
    const pgoutput::Message message = pgoutput::decode(payload, {.in_stream = true});
    const ChangeWriter::Taken taken = writer_.take(transaction_, message, payload);
    if (taken == ChangeWriter::Taken::No) co_await write_control(message, payload);
    if (taken == ChangeWriter::Taken::Behind) co_await writer_.write_behind(transaction_, message, payload);
    if (writer_.needs_relief()) co_await writer_.relieve();
  }
}

Awaitable<void> EarlyTransaction::write_control(const pgoutput::Message& message, Bytes payload) {
  if (const auto* relation = std::get_if<pgoutput::RelationView>(&message)) {
    co_await writer_.describe(transaction_, *relation, payload);
  } else if (const auto* note = std::get_if<pgoutput::LogicalMessageView>(&message)) {
    if (note->prefix == ddl::message_prefix || note->prefix == "walferry")
      throw NeedsCommit{"it holds a message to walferry"};
  }
}

void EarlyTransaction::look_after() {
  const std::vector<store::Arriving> arriving = spool_.arriving();
  std::erase_if(refused_, [&](store::StreamId stream) {
    return std::ranges::find(arriving, stream, &store::Arriving::stream) == arriving.end();
  });
  if (!stream_) return;
  const auto found = std::ranges::find(arriving, *stream_, &store::Arriving::stream);
  if (unwanted_) {
    abandon("its rows must be on record");
  } else if (found == arriving.end()) {
    if (!spool_.is_committed(*stream_)) abandon("it was rolled back, or comes again");
  } else if (found->partly_rolled_back) {
    abandon("a part of it was rolled back");
  } else if (Clock::now() - written_at_ > rest_max && chunks_ > 0) {
    abandon("it rests");
  }
}

Awaitable<bool> EarlyTransaction::complete(const store::StreamedCommit& commit) {
  if (!commit.aborted.empty() || unwanted_ || !writer_.attached()) co_return false;
  transaction_.final_lsn = commit.commit_lsn;
  transaction_.in_progress = false;
  std::optional<std::string> failure;
  try {
    while (chunks_ < commit.chunks) co_await write_chunk(chunks_++);
    writer_.begin();  // without any change for the target it still moves the position
    co_await writer_.settle();
  } catch (const boost::system::system_error&) {
    throw;  // cancelled
  } catch (const std::runtime_error& refused) {
    failure = refused.what();
  }
  if (!failure && !unwanted_) co_return true;
  abandon(failure.value_or("its rows must be on record"));
  co_return false;
}

Awaitable<void> EarlyTransaction::commit(const Progress& progress, const store::StreamedCommit& commit) {
  co_await writer_.run(progress.take_sql());
  co_await writer_.commit(commit.end_lsn, commit.commit_time);
  co_await writer_.run(progress.release_sql());
  stream_.reset();
  unwanted_ = false;
}

void EarlyTransaction::abandon(std::string_view why) {
  if (!stream_) return;
  unwanted_ = false;
  spdlog::debug("transaction {} is applied at its commit, not early: {}", static_cast<std::uint32_t>(transaction_.xid),
                why);
  refused_.insert(*stream_);
  stream_.reset();
  writer_.detach();
}

void EarlyTransaction::let_go() {
  abandon("the connection is dropped");
  writer_.detach();
}

}  // namespace walferry::apply
