#include "protocol/copy_format.hpp"

#include <string>

namespace walferry::copy_format {
namespace {

constexpr std::string_view binary_signature{"PGCOPY\n\377\r\n\0", 11};
constexpr std::uint32_t null_length = 0xFFFF'FFFF;     // -1 as i32
constexpr std::uint16_t trailer_count = 0xFFFF;        // -1 as i16
constexpr std::size_t field_count_max = 0x7FFF;        // the count is an i16
constexpr std::size_t field_length_max = 0x7FFF'FFFF;  // the length is an i32

// The letter that stands for a byte after a backslash; zero for a byte that needs no escape.
constexpr char escape_letter(char byte) {
  switch (byte) {
    case '\\':
      return '\\';
    case '\t':
      return 't';
    case '\n':
      return 'n';
    case '\r':
      return 'r';
    default:
      return '\0';
  }
}

void append_escaped(std::string_view text, Writer& writer) {
  std::size_t run_start = 0;  // what was seen but not written yet, and needs no escape
  for (std::size_t at = 0; at < text.size(); ++at) {
    const char letter = escape_letter(text[at]);
    if (letter == '\0') continue;
    writer.bytes(as_bytes(text.substr(run_start, at - run_start)));
    writer.u8('\\');
    writer.u8(static_cast<std::uint8_t>(letter));
    run_start = at + 1;
  }
  writer.bytes(as_bytes(text.substr(run_start)));
}

}  // namespace

void append_binary_header(std::vector<std::byte>& out) {
  Writer writer(out);
  writer.bytes(as_bytes(binary_signature));
  writer.u32(0);
  writer.u32(0);
}

void append_binary_tuple(std::span<const Field> fields, std::vector<std::byte>& out) {
  if (fields.size() > field_count_max) {
    throw ProtocolError("COPY tuple field count: " + std::to_string(fields.size()) + " is too many");
  }
  // Checked before the first byte is written: a tuple that is refused leaves the buffer as it was.
  for (const Field& field : fields) {
    if (field && field->size() > field_length_max) {
      throw ProtocolError("COPY field length: " + std::to_string(field->size()) + " is too long");
    }
  }
  Writer writer(out);
  writer.u16(static_cast<std::uint16_t>(fields.size()));
  for (const Field& field : fields) {
    if (!field) {
      writer.u32(null_length);
      continue;
    }
    writer.u32(static_cast<std::uint32_t>(field->size()));
    writer.bytes(*field);
  }
}

void append_binary_trailer(std::vector<std::byte>& out) {
  Writer(out).u16(trailer_count);
}

void append_text_row(std::span<const Field> fields, std::vector<std::byte>& out) {
  Writer writer(out);
  bool first = true;
  for (const Field& field : fields) {
    if (!first) writer.u8('\t');
    first = false;
    if (field) {
      append_escaped(as_text(*field), writer);
    } else {
      writer.bytes(as_bytes("\\N"));
    }
  }
  writer.u8('\n');
}

void expect_binary_header(Reader& in) {
  if (as_text(in.take(binary_signature.size(), "COPY header signature")) != binary_signature) {
    throw ProtocolError("COPY header signature: not PGCOPY");
  }
  if (in.u32("COPY header flags") != 0) throw ProtocolError("COPY header flags: not zero");
  if (in.u32("COPY header extension length") != 0) throw ProtocolError("COPY header extension length: not zero");
}

bool read_binary_tuple(Reader& in, std::vector<Field>& fields) {
  fields.clear();
  const std::uint16_t field_count = in.u16("COPY tuple field count");
  if (field_count == trailer_count) return false;
  if (field_count > field_count_max) throw ProtocolError("COPY tuple field count: negative");
  if (field_count > in.remaining() / sizeof(std::uint32_t)) {
    wire::throw_too_short("COPY tuple fields", field_count * sizeof(std::uint32_t), in.remaining());
  }
  fields.reserve(field_count);
  for (std::uint16_t index = 0; index < field_count; ++index) {
    const std::uint32_t length = in.u32("COPY field length");
    if (length == null_length) {
      fields.push_back(std::nullopt);
      continue;
    }
    if (length > field_length_max) throw ProtocolError("COPY field length: negative");
    fields.push_back(in.take(length, "COPY field value"));
  }
  return true;
}

}  // namespace walferry::copy_format
