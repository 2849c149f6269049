// pgoutput payloads between Stream Start and Stream Stop, where changes carry an xid.
#include "tests/fuzz/check.hpp"

namespace walferry::test {

void check_input(Bytes payload) {
  check_pgoutput(payload, {.in_stream = true, .abort_has_lsn = false});
  check_pgoutput(payload, {.in_stream = true, .abort_has_lsn = true});
}

}  // namespace walferry::test
