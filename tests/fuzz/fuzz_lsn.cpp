// A position as text: what is accepted is the same when it is written and read again.
#include "protocol/lsn.hpp"
#include "tests/fuzz/check.hpp"

namespace walferry::test {

void check_input(Bytes bytes) {
  const std::optional<Lsn> lsn = Lsn::parse(as_text(bytes));
  require(!lsn || Lsn::parse(lsn->to_string()) == lsn);
}

}  // namespace walferry::test
