// pgoutput payloads between Stream Start and Stream Stop, where changes carry an xid.
#include <cstdint>

#include "tests/fuzz/check.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const walferry::Bytes payload = std::as_bytes(std::span(data, size));
  walferry::test::check_pgoutput(payload, {.in_stream = true, .abort_has_lsn = false});
  walferry::test::check_pgoutput(payload, {.in_stream = true, .abort_has_lsn = true});
  return 0;
}
