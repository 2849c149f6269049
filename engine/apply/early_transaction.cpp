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
constexpr std::size_t piece_bytes_min = std::size_t{2} << 20U;
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

// Commits what `writer` has written with the position that `owner` owns, and gives that back.
Awaitable<void> commit_for(ChangeWriter& owner, Progress progress, ChangeWriter& writer, Lsn end_lsn) {
  co_await owner.run(progress.release_sql());
  co_await writer.run(progress.take_sql());
  co_await writer.commit(end_lsn);
  co_await writer.run(progress.release_sql());
  co_await owner.run(progress.take_sql());
}

}  // namespace

EarlyTransaction::EarlyTransaction(asio::any_io_executor executor, asio::thread_pool& pool, AttachmentOptions options,
                                   Lanes& lanes, unsigned lanes_wanted,
                                   const std::function<std::unique_ptr<ChangeWriter>()>& make_writer,
                                   store::Spool& spool, const stream::Position& position)
    : executor_(std::move(executor)),
      pool_(pool),
      options_(std::move(options)),
      lanes_(lanes),
      spool_(spool),
      position_(position) {
  for (unsigned lane = 0; lane < lanes_wanted; ++lane) {
    writers_.push_back(make_writer());
    writers_.back()->limit_lock_waits(true);
  }
}

std::vector<ChangeWriter*> EarlyTransaction::begun_writers() const {
  std::vector<ChangeWriter*> begun;
  for (const auto& writer : writers_) {
    if (writer->begun()) begun.push_back(writer.get());
  }
  return begun;
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
    split_.reset();
    chunks_ = 0;
    unsettled_ = false;
  }
  // Its commit will stand behind everything that the source has sent.
  transaction_.final_lsn = position_.source_wal_end;
  std::exception_ptr failure;
  try {
    if (!writers_.front()->attached()) co_await connect_lane(0);
    if (chunks_ == 0 && attached() < lanes_.attached() && !lanes_.resting()) co_await connect_lanes();
    if (arriving) co_await write_chunk(chunks_);
    if (!arriving) co_await settle_together(executor_, begun_writers());
  } catch (...) {
    failure = std::current_exception();
  }
  if (failure) {
    give_up(failure);
    co_return;
  }
  unsettled_ = arriving.has_value();
  if (!arriving) co_return;
  ++chunks_;
  written_at_ = Clock::now();
}

void EarlyTransaction::give_up(const std::exception_ptr& failure) {
  try {
    std::rethrow_exception(failure);
  } catch (const boost::system::system_error&) {
    throw;  // cancelled
  } catch (const CannotSplit& cause) {
    // Once more from its beginning, by lane 0.
    spdlog::debug("transaction {} is written by one lane: {}", static_cast<std::uint32_t>(transaction_.xid),
                  cause.what());
    lanes_.rest();
    stream_.reset();
    unwanted_ = false;
    detach();
  } catch (const std::runtime_error& refused) {
    const auto* error = dynamic_cast<const Error*>(&refused);
    if (error != nullptr && error->kind() == ErrorKind::State) throw;  // what the journal holds is not known
    if (split_.value_or(false)) lanes_.rest();
    abandon(refused.what());
  }
}

// Without them lane 0 writes alone.
Awaitable<void> EarlyTransaction::connect_lanes() {
  std::optional<Error> failure;
  try {
    std::vector<Awaitable<void>> connects;
    for (unsigned lane = 1; lane < lanes_.attached(); ++lane) connects.push_back(connect_lane(lane));
    co_await together(executor_, std::move(connects));
  } catch (const Error& error) {
    failure = error;
  }
  if (!failure) co_return;
  spdlog::info("transactions in progress are written by one connection: {}", failure->what());
  for (unsigned lane = 1; lane < writers_.size(); ++lane) writers_[lane]->detach();
  lanes_.rest();
}

Awaitable<void> EarlyTransaction::connect_lane(unsigned lane) {
  std::function<Attachment()> open = [options = options_, lane] { return attach_early(options, lane); };
  Attachment attached = co_await run_blocking<Attachment>(pool_, std::move(open));
  if (lane == 0 && writers_.size() > 1) tables_ = attached.tables;
  if (lane > 0) attached.tables = tables_;
  ChangeWriter& writer = *writers_[lane];
  co_await writer.attach(std::make_unique<pg::Connection>(executor_, std::move(attached.session)),
                         std::move(attached.tables), attached.progress, attached.replica_role);
  writer.gather(piece_bytes(writer.round_trip()));
}

unsigned EarlyTransaction::attached() const {
  return static_cast<unsigned>(std::ranges::count_if(writers_, [](const auto& writer) { return writer->attached(); }));
}

bool EarlyTransaction::may_split(const pgoutput::Message& first) const {
  return std::get_if<pgoutput::TruncateView>(&first) == nullptr && attached() == lanes_.attached() &&
         lanes_.may_split(position_.applied, position_.target_durable);
}

ChangeWriter& EarlyTransaction::writer_of(const pgoutput::Message& change) {
  if (!split_) split_ = may_split(change);
  if (!*split_) return *writers_.front();
  return *writers_[lanes_.lane_of(transaction_, change, writers_.front()->tables())];
}

Awaitable<void> EarlyTransaction::write_chunk(std::uint64_t chunk) {
  // While connections were opened, say.
  if (!spool_.contains(*stream_)) throw NeedsCommit{"it was rolled back, or comes again"};
  const store::Chunk held = spool_.stream_chunk(*stream_, chunk);
  for (const auto& writer : writers_) writer->read_from(held);
  Bytes rest = *held;
  while (!rest.empty()) {
    const Bytes payload = store::take_message(rest);
    const pgoutput::Message message = pgoutput::decode(payload, {.in_stream = true});
    if (!is_change(payload)) {
      co_await write_control(message, payload);
      continue;
    }
    ChangeWriter& writer = writer_of(message);
    const ChangeWriter::Taken taken = writer.take(transaction_, message, payload);
    if (taken == ChangeWriter::Taken::Behind) co_await writer.write_behind(transaction_, message, payload);
    if (*split_ && writer.must_write()) {
      co_await write_together(executor_, begun_writers());
    } else if (writer.needs_relief()) {
      co_await writer.relieve();
    }
  }
}

Awaitable<void> EarlyTransaction::write_control(const pgoutput::Message& message, Bytes payload) {
  if (const auto* relation = std::get_if<pgoutput::RelationView>(&message)) {
    for (const auto& writer : writers_) {
      if (writer->attached()) co_await writer->describe(transaction_, *relation, payload);
    }
    lanes_.note_described(relation->id, writers_.front()->tables().find(relation->id));
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
  if (!commit.aborted.empty() || unwanted_ || !writers_.front()->attached()) co_return false;
  transaction_.final_lsn = commit.commit_lsn;
  transaction_.in_progress = false;
  std::exception_ptr failure;
  try {
    while (chunks_ < commit.chunks) co_await write_chunk(chunks_++);
    writers_.front()->begin();  // without any change for the target it still moves the position
    co_await settle_together(executor_, begun_writers());
  } catch (...) {
    failure = std::current_exception();
  }
  if (failure) give_up(failure);
  if (!failure && !unwanted_) co_return true;
  abandon("its rows must be on record");
  co_return false;
}

Awaitable<bool> EarlyTransaction::commit(ChangeWriter& owner, const Progress& progress,
                                         const store::StreamedCommit& commit) {
  std::vector<Awaitable<void>> commits;
  for (unsigned lane = 1; lane < writers_.size(); ++lane) {
    if (!writers_[lane]->begun()) continue;
    commits.push_back(commit_for(lanes_.writer(lane), lanes_.progress(lane), *writers_[lane], commit.end_lsn));
  }
  const bool split = !commits.empty();
  co_await together(executor_, std::move(commits));
  co_await commit_for(owner, progress, *writers_.front(), commit.end_lsn);
  if (split) lanes_.committed(commit.end_lsn);
  stream_.reset();
  unwanted_ = false;
  co_return split;
}

void EarlyTransaction::abandon(std::string_view why) {
  if (!stream_) return;
  unwanted_ = false;
  spdlog::debug("transaction {} is applied at its commit, not early: {}", static_cast<std::uint32_t>(transaction_.xid),
                why);
  refused_.insert(*stream_);
  stream_.reset();
  detach();
}

void EarlyTransaction::let_go() {
  abandon("the connection is dropped");
  detach();
}

void EarlyTransaction::detach() {
  for (const auto& writer : writers_) writer->detach();
}

}  // namespace walferry::apply
