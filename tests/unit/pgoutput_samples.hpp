// One or more well-formed payloads of every pgoutput message. All but those named "made" were sent by PostgreSQL 15.
//
// The tables behind them: public.t(id int primary key, body text, m app.mood), public.f(id int, big text) with
// replica identity full, public.z() without columns.
#pragma once

#include <span>
#include <string_view>

#include "protocol/pgoutput.hpp"

namespace walferry::test {

struct PgoutputSample {
  std::string_view name;  // also the name of its file in the fuzz corpus
  pgoutput::DecodeContext context;
  std::string_view notation;  // for wire()
};

[[nodiscard]] std::span<const PgoutputSample> pgoutput_samples();

// The sample of that name; throws std::out_of_range where there is none.
[[nodiscard]] const PgoutputSample& pgoutput_sample(std::string_view name);

}  // namespace walferry::test
