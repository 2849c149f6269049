// The switch-over: guards -> comparison of everything -> catching up -> fence -> drain to a marker -> sequences ->
// proof -> source closed for good, or everything undone (G6).
//
// The fence's triggers are made beside what comes between fence and close.
// Until Fence::make_durable() commits, any failure lifts the lease and the source is writable again; that commit is
// the one point of no return, and everything has been proven before it. The report is in the journal before the commit,
// so that a crash right after it is told apart by the durable fence on the source. Run by Migration when the control
// socket asks.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "engine/apply/applier.hpp"
#include "engine/async.hpp"
#include "engine/control.hpp"
#include "engine/cutover/proof.hpp"
#include "engine/cutover/schema_state.hpp"
#include "engine/setup.hpp"
#include "engine/store/journal.hpp"
#include "engine/stream/position.hpp"
#include "engine/verify/verify.hpp"
#include "engine/way_back.hpp"

namespace walferry::cutover {

// What the cutover needs of the running migration.
struct Environment {
  MigrationOptions options;
  const Ends& ends;
  store::Journal& journal;
  const stream::Position& position;
  Status& status;
  asio::any_io_executor executor;
  asio::thread_pool& pool;
  // Resolves when this text has come through the stream and is committed on the target; false at the deadline, or when
  // the apply stands still.
  std::function<Awaitable<bool>(std::string, Deadline)> await_marker;
  std::function<void()> wake_receiver;
  // Until the cutover has ended; if it is not switched then, the target is made ready again before the apply goes on.
  std::function<Awaitable<void>()> rest_apply;
  Proof::MakeMoment make_moment;
  std::stop_token stop;  // of the program
};

struct Step {
  std::string name;
  double milliseconds = 0;
  Lsn lsn;
};

struct Report {
  std::string result;  // "switched", "rolled-back", "undecided", "dry-run", "refused"
  std::string error;
  double writes_stopped_ms = 0;
  double writes_delayed_ms = 0;  // by tries of the fence that were given up
  Lsn fence_lsn;
  Lsn applied_lsn;
  std::vector<Step> steps;
  std::vector<std::string> blockers;
  std::optional<VerifyReport> verification;
  Lsn compared_at;               // of everything
  std::size_t touched_rows = 0;  // since then, compared again in the write stop
  std::vector<std::string> notes;
  Lsn way_back_begins;      // on the target; zero: none was armed
  bool back = false;        // this is the cutover of a way back
  std::vector<Skip> skips;  // of the whole migration
};

[[nodiscard]] std::string render_json(const Report& report, const Ends& ends);

struct Prepared;

class Cutover {
 public:
  Cutover(Environment environment, CutoverOptions options, std::function<void(std::string)> on_step);

  // The exit code (0, 2, 3, 5, 6, 7, 8) and the report as JSON.
  Awaitable<CommandOutcome> run();
  [[nodiscard]] const Report& report() const { return report_; }
  // The source went away in the one moment in which it decides, and has not come back in time.
  [[nodiscard]] bool undecided() const { return undecided_; }
  // The source is closed for good, whatever came after that.
  [[nodiscard]] bool closed() const { return closed_; }

 private:
  // A place in the source's stream.
  struct Mark {
    std::string text;
    Lsn lsn;
  };

  Awaitable<void> compare();
  Awaitable<void> prepare();
  Awaitable<void> arm_way_back();
  Awaitable<void> remove_way_back();
  Awaitable<void> catch_up(Deadline deadline);
  Awaitable<std::shared_ptr<const Mark>> make_mark(pg::Session& source);
  Awaitable<void> await_mark(const Mark& mark, Deadline deadline);
  [[nodiscard]] bool marks_are_messages() const { return environment_.ends.source.server_version >= 140'000; }
  Awaitable<void> stop_writes();
  Awaitable<void> arm_fence();
  Awaitable<void> bring_target_level();
  Awaitable<void> drain();
  Awaitable<void> look_at_schema();
  void touch(const std::vector<ChangedTable>& changed);
  Awaitable<void> copy_unlogged();
  Awaitable<void> copy_large_objects();
  Awaitable<void> copy_extension_tables();
  Awaitable<void> copy_sequences();
  Awaitable<void> copy_sequences_again();
  Awaitable<void> prove();
  Awaitable<void> put_back_target();
  Awaitable<void> close_source();
  void note_switched();
  Awaitable<void> open_target();
  Awaitable<void> step(std::string name, Awaitable<void> work);
  Awaitable<void> decide_after(Error failure);
  Awaitable<void> undo(const Error& cause);
  void require_time() const;
  [[nodiscard]] std::chrono::milliseconds time_left() const;

  Environment environment_;
  CutoverOptions options_;
  std::function<void(std::string)> on_step_;
  Report report_;
  Proof proof_;
  Deadline deadline_{};  // from the preparation of the write stop on; the comparison before it takes its time
  Deadline writes_stopped_at_{};
  std::optional<pg::Session> marking_;  // of the source, while writers go on
  std::shared_ptr<Prepared> prepared_;  // shared with the pool threads that work on it
  std::optional<WayBack> way_back_;
  std::vector<SequenceComparison> sequences_;
  std::string marker_;
  Event armed_;              // the fence has its triggers, or never will
  std::stop_source arming_;  // stopped when what goes on beside it has failed
  std::exception_ptr not_armed_;
  std::stop_source proving_;
  bool undecided_ = false;
  bool closed_ = false;                       // the source, for good
  std::optional<SchemaState> schema_before_;  // the first comparison; written and read on pool threads, one at a time
};

}  // namespace walferry::cutover
