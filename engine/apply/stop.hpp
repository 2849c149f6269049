// The error that makes the apply stand still at one known thing: what it is, and where it stands in the stream.
//
// Thrown inside Applier and caught by Applier::run, which records the point so that a person can repair or skip it.
#pragma once

#include "engine/error.hpp"
#include "engine/skip.hpp"

namespace walferry::apply {

class Stop : public Error {
 public:
  Stop(Side side, StopPoint point, const std::string& sqlstate = {})
      : Error({ErrorKind::Divergence, side, sqlstate}, point.error), point_(std::move(point)) {}

  [[nodiscard]] const StopPoint& point() const { return point_; }

 private:
  StopPoint point_;
};

}  // namespace walferry::apply
