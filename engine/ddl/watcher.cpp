#include "engine/ddl/watcher.hpp"

#include <spdlog/spdlog.h>

#include <algorithm>

namespace walferry::ddl {
namespace {

using Clock = std::chrono::steady_clock;

constexpr auto shortest_interval = std::chrono::seconds{5};
constexpr int rest_factor = 30;  // a look takes this fraction of the time at most

}  // namespace

Watcher::Watcher(const asio::any_io_executor& executor, asio::thread_pool& pool, SchemaWatch watch,
                 std::function<void()> join, Status& status)
    : pool_(pool),
      watch_(std::make_shared<SchemaWatch>(std::move(watch))),
      join_(std::move(join)),
      status_(status),
      wake_(executor) {}

Awaitable<void> Watcher::run() {
  bool failed_before = false;
  for (;;) {
    const auto begun = Clock::now();
    std::optional<Error> failure;
    std::vector<DdlFinding> findings;
    std::function<std::vector<DdlFinding>()> look = [watch = watch_] { return watch->compare(); };
    try {
      findings = co_await run_blocking<std::vector<DdlFinding>>(pool_, std::move(look));
      report(std::move(findings));
      std::function<void()> join = join_;
      co_await run_blocking<void>(pool_, std::move(join));
    } catch (const Error& error) {
      failure = error;
    }
    if (failure && failure->kind() == ErrorKind::Stopped) co_return;
    if (failure && !failed_before) spdlog::warn("the schemas cannot be looked at now: {}", failure->what());
    failed_before = failure.has_value();
    const auto took = Clock::now() - begun;
    co_await wake_.wait_until(Clock::now() + std::max<Clock::duration>(shortest_interval, took * rest_factor));
  }
}

void Watcher::report(std::vector<DdlFinding> findings) {
  for (const DdlFinding& finding : findings) {
    const bool known = std::ranges::any_of(status_.ddl.findings, [&](const DdlFinding& each) {
      return each.object == finding.object && each.change == finding.change;
    });
    if (!known) spdlog::warn("{} was {} on the source. Remedy: {}", finding.object, finding.change, finding.remedy);
  }
  status_.ddl.findings = std::move(findings);
}

}  // namespace walferry::ddl
