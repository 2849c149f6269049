// The migration daemon: the phases, in order, and everything that runs beside them.
//
//   begin -> schema -> copy -> post-data -> catch up -> follow -> (cutover) -> switched
//
// The main loop is Migration::go_through_phases(). Owns the state directory, the spool, the io thread, the pool of
// blocking threads and the long-lived coroutines: Receiver (from the moment the slot exists), ApplyWorker (from
// catch-up on), Monitor, http::Server. Invariant: each phase is recorded when it is complete and is safe to begin
// again, so after any death `run` goes on by itself. Made and run by cli/.
#pragma once

#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>
#include <memory>
#include <optional>
#include <stop_token>

#include "engine/apply_worker.hpp"
#include "engine/control.hpp"
#include "engine/cutover/cutover.hpp"
#include "engine/ddl/join.hpp"
#include "engine/ddl/recopy.hpp"
#include "engine/ddl/watcher.hpp"
#include "engine/http/server.hpp"
#include "engine/initial_copy.hpp"
#include "engine/lock_waits.hpp"
#include "engine/monitor.hpp"
#include "engine/schema/target_prepare.hpp"
#include "engine/setup.hpp"
#include "engine/store/skips.hpp"
#include "engine/store/spool.hpp"
#include "engine/stream/receiver.hpp"
#include "engine/table_states.hpp"
#include "engine/way_back.hpp"

namespace walferry {

class Migration final : public ControlHandler {
 public:
  explicit Migration(MigrationOptions options);
  ~Migration() override;

  // Runs until the goal of options.until is reached or a signal stops it. Throws what no retry mends.
  // `on_ready` is called once signals are handled, `on_end` before they are handled no more.
  void run(const std::function<void()>& on_ready = {}, const std::function<void()>& on_end = {});
  // What is to run next in this process: the way back, if the migration has switched with one and nobody asked it to
  // stop.
  [[nodiscard]] std::optional<MigrationOptions> way_back() const;

  // ControlHandler, on the io thread.
  const Status& status() override;
  bool ready() override;
  Awaitable<std::string> cutover_readiness() override;
  Awaitable<CommandOutcome> cutover(CutoverOptions options, std::function<void(std::string)> on_step) override;
  Skip skip(Lsn lsn, const std::string& reason) override;
  void accept(const std::string& object, const std::string& reason) override;
  void stop() override;

 private:
  static constexpr std::chrono::seconds stop_patience{10};  // for the group under way

  [[nodiscard]] bool settled_choice(bool wanted, std::string_view taken_back, std::string_view option) const;
  Awaitable<void> main();
  Awaitable<void> go_through_phases();
  Awaitable<void> connect_both();
  Awaitable<void> begin();
  Awaitable<void> find_position();
  Awaitable<void> move_schema();
  Awaitable<void> copy();
  Awaitable<void> copy_once();
  Awaitable<void> build_post_data();
  Awaitable<void> build_post_data_once();
  Awaitable<void> prepare_target();
  Awaitable<void> follow();
  Awaitable<void> list_tables();
  Awaitable<void> apply_until(Lsn lsn, Deadline deadline);
  Awaitable<std::shared_ptr<cutover::Moment>> make_moment(Deadline deadline);
  Awaitable<void> rest_at_moment(std::shared_ptr<cutover::Moment>& moment, Deadline deadline);
  Awaitable<void> find_switched();
  Awaitable<void> retire();
  Awaitable<void> wait_for_goal();
  Awaitable<void> insist(std::string what, std::function<Awaitable<void>()> attempt);
  Awaitable<void> insist_blocking(std::string what, std::function<void()> work);

  void set_phase(Phase phase);
  void run_beside(Awaitable<void> work, asio::cancellation_signal& cancel, std::function<void()> on_end = {});
  void start_monitor();
  void start_receiver();
  void start_watcher();
  [[nodiscard]] apply::ApplierOptions applier_options(Lsn until);
  void settle(const ddl::Command& command, ddl::Outcome outcome);
  Awaitable<void> copy_again(const store::TablesToCopyAgain& marked);
  struct CopyAttempt {
    std::optional<ddl::CopiedAgain> copied;
    bool forgotten = false;  // it is not to be copied any more
    bool timed_out = false;  // by transactions that are open on the source
    std::string why_not;
  };
  [[nodiscard]] CopyAttempt copy_again_now(const QualifiedName& name, RelationId id, Deadline patience);
  // Where tables may join; nullopt: the publication or the target's data is not walferry's.
  [[nodiscard]] std::optional<ddl::JoinOptions> join_options() const;
  void tick();
  void fail(std::exception_ptr failure);
  void require_running() const;
  [[nodiscard]] InitialCopy::Watch watch_copy();
  [[nodiscard]] ApplyWorker::Watch watch_apply();

  MigrationOptions options_;
  store::Database database_;
  store::Journal journal_;
  store::Spool spool_;
  store::Skips skips_;

  asio::io_context io_{1};
  asio::thread_pool pool_;
  asio::signal_set signals_;
  asio::cancellation_signal cancel_receiver_;
  asio::cancellation_signal cancel_monitor_;
  asio::cancellation_signal cancel_lock_waits_;
  asio::cancellation_signal cancel_watcher_;
  asio::cancellation_signal cancel_listing_;
  std::stop_source stop_;  // for blocking work
  Event changed_;          // phase, failure, stop, applier's end: whatever go_through_phases() may wait for
  std::exception_ptr failure_;

  Status status_;
  stream::Position position_;
  Ends ends_;
  bool cutover_running_ = false;
  bool told_to_stop_ = false;      // by a person
  bool retired_ = false;           // after the switch nothing is received or applied
  bool apply_must_go_on_ = false;  // a cutover had it rest, and failed
  Event apply_goes_on_;

  // What stands in the way of a cutover, while both ends are being asked.
  struct Readiness {
    explicit Readiness(const asio::any_io_executor& executor) : asking(executor, Deadline::max()) {}

    asio::steady_timer asking;  // ends the wait of all who asked meanwhile
    bool answered = false;
    std::vector<std::string> blockers;
  };
  std::shared_ptr<Readiness> readiness_;

  // A table that could not be copied again, on the io thread.
  struct Postponed {
    int attempts = 0;
    Deadline until{};
  };
  std::map<RelationId, Postponed> postponed_;
  int copy_again_timeouts_ = 0;  // since the last success

  TableStates tables_;
  InitialCopy initial_copy_;
  std::shared_ptr<const schema::ActingObjects> own_actions_;  // of the target; none before it was prepared
  std::unique_ptr<stream::Receiver> receiver_;
  ApplyWorker apply_;
  std::unique_ptr<Monitor> monitor_;
  std::unique_ptr<LockWaits> lock_waits_;
  std::unique_ptr<ddl::Watcher> watcher_;
  std::unique_ptr<http::Server> server_;
};

}  // namespace walferry
