// What is asked of the running migration through the control socket and the status port.
#include <spdlog/spdlog.h>

#include <algorithm>
#include <boost/asio/redirect_error.hpp>
#include <boost/json.hpp>
#include <boost/system/system_error.hpp>
#include <fstream>

#include "engine/cutover/fence.hpp"
#include "engine/cutover/guards.hpp"
#include "engine/ddl/schema_watch.hpp"
#include "engine/listed.hpp"
#include "engine/migration.hpp"

namespace walferry {

namespace keys = store::journal_keys;
using Clock = std::chrono::steady_clock;

constexpr auto resume_patience = std::chrono::seconds{3};  // for the apply to be there again

void Migration::stop() {
  told_to_stop_ = true;
  stop_.request_stop();
  changed_.notify();
}

Skip Migration::skip(Lsn lsn, const std::string& reason) {
  Skip skip = skips_.add(lsn, reason);
  spdlog::warn("{} at {} will be left out: {}", to_string(skip.point.what), lsn.to_string(), reason);
  status_.skips = skips_.list();
  apply_.wake();
  return skip;
}

void Migration::accept(const std::string& object, const std::string& reason) {
  if (reason.find_first_not_of(" \t\n") == std::string::npos)
    throw Error{{ErrorKind::Usage}, "a skip needs a reason: it is kept in the report"};
  const auto found = std::ranges::find(status_.ddl.findings, object, &DdlFinding::object);
  if (found == status_.ddl.findings.end()) {
    std::vector<std::string> objects;
    for (const DdlFinding& finding : status_.ddl.findings) objects.push_back("'" + finding.object + "'");
    throw Error{{ErrorKind::Refused},
                fmt::format("nothing was found of {}. Nothing was changed. Remedy: one of `status`, exactly: {}",
                            object, objects.empty() ? "there is none" : listed(objects, 10))};
  }
  ddl::SchemaWatch::accept(journal_, *found, reason);
  spdlog::warn("{} was {} on the source; that the target differs is accepted: {}", object, found->change, reason);
  status_.ddl.findings.erase(found);
}

const Status& Migration::status() {
  if (monitor_) monitor_->refresh();
  return status_;
}

bool Migration::ready() {
  if (status_.apply_stopped || failure_) return false;
  switch (status_.phase) {
    case Phase::Schema:
    case Phase::Copy:
    case Phase::PostData:
      return status_.source_connected;
    case Phase::CatchUp:
    case Phase::Follow:
    case Phase::Cutover:
      return status_.source_connected && status_.target_connected;
    case Phase::Switched:
      return true;
    case Phase::Init:
    case Phase::Finished:
    case Phase::Aborted:
      return false;
  }
  return false;
}

Awaitable<std::string> Migration::cutover_readiness() {
  // However many ask at once, the ends are asked once: an answer may take seconds, and a thread that others need.
  const bool mine = readiness_ == nullptr;
  if (mine) readiness_ = std::make_shared<Readiness>(io_.get_executor());
  const std::shared_ptr<Readiness> readiness = readiness_;
  if (mine) {
    std::function<std::vector<std::string>()> ask = [this] { return cutover::blockers_of_ends(options_, journal_); };
    try {
      readiness->blockers = co_await run_blocking<std::vector<std::string>>(pool_, std::move(ask));
    } catch (const std::exception& error) {
      readiness->blockers.emplace_back(error.what());
    }
    readiness_ = nullptr;
    readiness->answered = true;
    readiness->asking.cancel();
  } else {
    boost::system::error_code ignored;  // answered, or we are cancelled
    co_await readiness->asking.async_wait(asio::redirect_error(asio::use_awaitable, ignored));
    if (!readiness->answered) throw boost::system::system_error{asio::error::operation_aborted};
  }
  std::vector<std::string> blockers = cutover::own_blockers(status(), CutoverOptions{}.max_lag);
  blockers.insert(blockers.end(), readiness->blockers.begin(), readiness->blockers.end());
  boost::json::array list;
  for (const std::string& blocker : blockers) list.push_back(boost::json::string{blocker});
  co_return boost::json::serialize(list);
}

Awaitable<CommandOutcome> Migration::cutover(CutoverOptions options, std::function<void(std::string)> on_step) {
  if (cutover_running_) {
    throw Error{{ErrorKind::Refused}, "a cutover is under way. Remedy: wait for its end; `walferry status` shows it"};
  }
  if (status_.phase == Phase::Switched) {
    throw Error{{ErrorKind::Refused},
                "this migration has been switched already. Remedy: `walferry finish` removes what it needs no more"};
  }
  cutover_running_ = true;
  const bool real = !options.dry_run;
  static_cast<void>(status());  // the guards look at fresh numbers
  bool rested = false;
  // It comes to its end, whoever asks the program to stop.
  MigrationOptions to_its_end = options_;
  to_its_end.source = options_.source.until({});
  to_its_end.target = options_.target.until({});
  cutover::Cutover cutover{
      {.options = std::move(to_its_end),
       .ends = ends_,
       .journal = journal_,
       .position = position_,
       .status = status_,
       .executor = io_.get_executor(),
       .pool = pool_,
       .await_marker = [this](std::string marker,
                              Deadline deadline) { return apply_.await_marker(std::move(marker), deadline); },
       .wake_receiver = [this] { receiver_->request_confirmation(); },
       .rest_apply =
           [this, &rested] {
             rested = true;
             return apply_.rest(Clock::now() + stop_patience);
           },
       .make_moment = [this](Deadline deadline) { return make_moment(deadline); },
       .stop = stop_.get_token()},
      options,
      std::move(on_step)};
  std::exception_ptr failure;
  CommandOutcome outcome;
  const bool following = status_.phase == Phase::Follow;
  try {
    if (real && following) journal_.set_phase(Phase::Cutover);
    outcome = co_await cutover.run();
  } catch (...) {
    failure = std::current_exception();  // rethrown below
  }
  apply_.record(nullptr);
  cutover_running_ = false;
  changed_.notify();
  if (cutover.closed()) {
    status_.phase = Phase::Switched;
  } else if (cutover.undecided()) {
    // The phase stays "cutover": the next start asks the source until it answers.
    fail(std::make_exception_ptr(Error{{ErrorKind::Connection, Side::Source}, cutover.report().error}));
  } else if (real && following) {
    apply_must_go_on_ = rested;
    set_phase(Phase::Follow);
    // Another try may follow at once.
    const Deadline patience = Clock::now() + resume_patience;
    while (apply_must_go_on_ && Clock::now() < patience) co_await apply_goes_on_.wait_until(patience);
    if (rested) co_await apply_.attached(patience);
  }
  if (failure) std::rethrow_exception(failure);
  if (real) {
    std::ofstream{options_.state_dir / "report.json"} << outcome.json << '\n';
    try {
      journal_.put(keys::report, outcome.json);
    } catch (const Error& error) {
      if (!cutover.closed()) throw;
      spdlog::warn("the report is not in the state directory: {}", error.what());
    }
  }
  co_return outcome;
}

}  // namespace walferry
