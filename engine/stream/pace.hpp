// Whether small transactions come so fast that applying each by itself keeps the apply at work all the time.
//
// Applied as soon as it is there, a small transaction costs the source, walferry and the target several times what it
// costs in a group, and what they take from processors that the application needs too costs it throughput. So beyond
// that rate transactions are left to gather for some milliseconds, and below it each goes at once. Asked by Receiver.
#pragma once

#include <chrono>
#include <cstdint>

namespace walferry::stream {

class Pace {
 public:
  using Moment = std::chrono::steady_clock::time_point;
  using Duration = std::chrono::steady_clock::duration;

  // Of all time: how many source transactions were applied, and for how long the apply was at work.
  void saw(Moment now, std::uint64_t transactions, Duration at_work);

  [[nodiscard]] bool gathers() const { return gathers_; }

 private:
  static constexpr Duration window = std::chrono::milliseconds{250};
  static constexpr double busy_share = 0.75;                  // of the time, with each transaction by itself
  static constexpr int busy_windows = 4;                      // fewer may be an accident
  static constexpr double rate_min = 400;                     // a second: fewer do not meet in one pause
  static constexpr double rate_to_leave = 0.6;                // of the rate that kept the apply busy
  static constexpr Duration term = std::chrono::seconds{30};  // then it is tried again whether it still does

  Moment begun_;
  std::uint64_t transactions_ = 0;
  Duration at_work_{};
  int busy_ = 0;  // windows in a row
  bool gathers_ = false;
  Moment gathers_since_;
  double busy_rate_ = 0;  // transactions a second when it began to gather
};

}  // namespace walferry::stream
