// COPY framing, text and binary (doc page "COPY", sections "Text Format" and "Binary Format").
//
//   binary := "PGCOPY\n\377\r\n\0", flags u32 = 0, extension length u32 = 0, tuple*, trailer i16 = -1
//   tuple  := field count i16, field*;  field := length i32 (-1 = NULL), bytes
//   text   := field ("\t" field)* "\n";  "\N" = NULL; backslash, tab, newline, carriage return are escaped
//
// Used by set-wise apply and by tests. Appends to the caller's buffer, decodes with checks.
#pragma once

#include <optional>
#include <vector>

#include "protocol/bytes.hpp"

namespace walferry::copy_format {

// nullopt is NULL.
using Field = std::optional<Bytes>;

void append_binary_header(std::vector<std::byte>& out);
void append_binary_tuple(std::span<const Field> fields, std::vector<std::byte>& out);
void append_binary_trailer(std::vector<std::byte>& out);

void append_text_row(std::span<const Field> fields, std::vector<std::byte>& out);

// Reads one binary tuple at the reader's place into `fields` (cleared first); false at the trailer.
[[nodiscard]] bool read_binary_tuple(Reader& in, std::vector<Field>& fields);
void expect_binary_header(Reader& in);

}  // namespace walferry::copy_format
