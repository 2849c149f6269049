// Which row holds bytes that the source cannot convert to the encoding of the stream.
//
// A walsender that fails so names neither table nor row, only the LSN of the change. The same stretch of the stream is
// then read once more without conversion, and this looks for that change in it: its table, and the key of its row.
// Pure: Receiver reads, and hands the frames in.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "protocol/bytes.hpp"
#include "protocol/lsn.hpp"

namespace walferry::stream {

// Whether the source failed at bytes without a meaning, or at a character that the other encoding lacks.
[[nodiscard]] bool is_conversion_failure(std::string_view sqlstate);

// The LSN in the context that a walsender gives to its error: "... associated LSN 0/1A2B3C8"; nullopt without one.
[[nodiscard]] std::optional<Lsn> failed_at(std::string_view message);

class UnreadableRow {
 public:
  explicit UnreadableRow(Lsn lsn) : lsn_(lsn) {}

  // "public.t (id)=(3)" when this frame holds the change.
  [[nodiscard]] std::optional<std::string> look_at(Bytes frame);

 private:
  struct Relation {
    std::string name;
    std::vector<std::string> key_columns;  // an empty name for a column that is not in the key
  };

  Lsn lsn_;
  bool in_stream_ = false;
  std::map<std::uint32_t, Relation> relations_;
};

}  // namespace walferry::stream
