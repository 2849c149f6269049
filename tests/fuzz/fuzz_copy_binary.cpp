// A whole binary COPY. What is accepted must be written again byte for byte.
#include "protocol/copy_format.hpp"
#include "tests/fuzz/check.hpp"

namespace walferry::test {

void check_input(Bytes bytes) {
  std::vector<std::byte> written;
  try {
    Reader in(bytes);
    copy_format::expect_binary_header(in);
    copy_format::append_binary_header(written);
    std::vector<copy_format::Field> fields;
    while (copy_format::read_binary_tuple(in, fields)) copy_format::append_binary_tuple(fields, written);
    copy_format::append_binary_trailer(written);
    in.expect_end("COPY");
  } catch (const ProtocolError&) {
    // Refused, but the tuples in front of the damage were read: they must be a prefix of the input.
    require(written.size() <= bytes.size());
    require(same_bytes(written, bytes.first(written.size())));
    return;
  }
  require(same_bytes(written, bytes));
}

}  // namespace walferry::test
