#include "engine/stream/pace.hpp"

namespace walferry::stream {

void Pace::saw(Moment now, std::uint64_t transactions, Duration at_work) {
  const Duration elapsed = now - begun_;
  if (elapsed < window) return;
  const double seconds = std::chrono::duration<double>(elapsed).count();
  const double rate = static_cast<double>(transactions - transactions_) / seconds;
  const double share = std::chrono::duration<double>(at_work - at_work_).count() / seconds;
  begun_ = now;
  transactions_ = transactions;
  at_work_ = at_work;
  if (gathers_) {
    gathers_ = rate >= rate_to_leave * busy_rate_ && now - gathers_since_ < term;
    return;
  }
  busy_ = share >= busy_share && rate >= rate_min ? busy_ + 1 : 0;
  if (busy_ < busy_windows) return;
  busy_ = 0;
  gathers_ = true;
  gathers_since_ = now;
  busy_rate_ = rate;
}

}  // namespace walferry::stream
