#include "protocol/copy_out.hpp"

#include <algorithm>

namespace walferry {
namespace {

constexpr std::size_t header_bytes = 1 + 4;

CopyOutReader::Failure read_failure(Bytes body) {
  CopyOutReader::Failure failure;
  Reader in{body};
  for (std::uint8_t field = in.u8("ErrorResponse field"); field != 0; field = in.u8("ErrorResponse field")) {
    const std::string_view value = in.c_string("ErrorResponse value");
    switch (static_cast<char>(field)) {
      case 'C':
        failure.sqlstate = value;
        break;
      case 'M':
        failure.message = value;
        break;
      case 'D':
        failure.detail = value;
        break;
      case 'H':
        failure.hint = value;
        break;
      default:
        break;
    }
  }
  return failure;
}

}  // namespace

std::size_t CopyOutReader::take(Bytes input, std::string& rows) {
  const std::size_t before = input.size();
  while (!over_) {
    if (row_bytes_left_ > 0) {
      const std::size_t here = std::min(row_bytes_left_, input.size());
      rows.append(as_text(input.first(here)));
      input = input.subspan(here);
      row_bytes_left_ -= here;
      if (row_bytes_left_ > 0) break;
    }
    if (input.size() < header_bytes) break;
    const char tag = static_cast<char>(input.front());
    const auto length = wire::load<std::uint32_t>(input.data() + 1);
    if (length < sizeof length) throw ProtocolError("a message of the server is shorter than its own length");
    const std::size_t body_bytes = length - sizeof length;
    if (tag == 'd') {
      ++rows_;
      row_bytes_left_ = body_bytes;
      input = input.subspan(header_bytes);
      continue;
    }
    if (body_bytes > message_bytes_max) {
      throw ProtocolError("message " + wire::describe_byte(static_cast<std::uint8_t>(tag)) +
                          " of the server is too long for its kind");
    }
    if (input.size() - header_bytes < body_bytes) break;
    read(tag, input.subspan(header_bytes, body_bytes));
    input = input.subspan(header_bytes + body_bytes);
  }
  return before - input.size();
}

void CopyOutReader::read(char tag, Bytes body) {
  switch (tag) {
    case 'H':  // CopyOutResponse
    case 'c':  // CopyDone
    case 'C':  // CommandComplete
    case 'N':  // NoticeResponse
    case 'S':  // ParameterStatus
    case 'A':  // NotificationResponse
      return;
    case 'E':
      if (!failure_) failure_ = read_failure(body);
      return;
    case 'Z':
      over_ = true;
      return;
    default:
      throw ProtocolError("message " + wire::describe_byte(static_cast<std::uint8_t>(tag)) +
                          " of the server does not belong to a COPY");
  }
}

}  // namespace walferry
