// A block of the spool, and the messages in it. What is accepted must be written again byte for byte.
#include "engine/store/block.hpp"
#include "tests/fuzz/check.hpp"

namespace walferry::test {

void check_input(Bytes bytes) {
  try {
    const store::Block block = store::decode_block(as_text(bytes));
    require(same_bytes(as_bytes(store::encode(block)), bytes));
    std::vector<std::byte> written;
    for (Bytes rest = block.messages; !rest.empty();) store::append_message(written, store::take_message(rest));
    require(same_bytes(written, block.messages));
  } catch (const ProtocolError&) {
    // Refused.
  }
}

}  // namespace walferry::test
