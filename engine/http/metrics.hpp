// A Status as Prometheus text: what /metrics answers.
//
// Names begin with walferry_, units are bytes, seconds and rows, counters end in _total. A value that is not known has
// no sample rather than a zero. Built afresh from the Status for every scrape, so nothing is counted twice and nothing
// has to be kept in step; http::Server is the only caller.
#pragma once

#include <string>

#include "engine/status.hpp"

namespace walferry::http {

[[nodiscard]] std::string metrics_text(const Status& status);

}  // namespace walferry::http
