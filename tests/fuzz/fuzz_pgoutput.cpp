// pgoutput payloads outside a streamed block, with both forms of Stream Abort.
#include "tests/fuzz/check.hpp"

namespace walferry::test {

void check_input(Bytes payload) {
  check_pgoutput(payload, {.in_stream = false, .abort_has_lsn = false});
  check_pgoutput(payload, {.in_stream = false, .abort_has_lsn = true});
}

}  // namespace walferry::test
