// A value as text, taken for each type: refused it leaves nothing behind, and else it stands behind its own length.
#include "protocol/binary_value.hpp"
#include "tests/fuzz/check.hpp"

namespace walferry::test {

void check_input(Bytes bytes) {
  using enum BinaryType;
  constexpr std::byte before{7};
  for (const BinaryType type : {Bool, Bytea, Int8, Int2, Int4, Text, Float4, Float8, Date, Time, Timestamp, TimestampTz,
                                Numeric, Uuid, Jsonb}) {
    std::vector<std::byte> out{before};
    const bool taken = append_value(type, as_text(bytes), out);
    require(out.front() == before);
    if (taken) {
      Reader in{Bytes{out}.subspan(1)};
      require(in.u32("length") == in.rest().size());
    } else {
      require(out.size() == 1);
    }
  }
}

}  // namespace walferry::test
