// Wire bytes as a reader of the tests wants to see them: hexadecimal with blanks between the fields, and text in
// quotes. wire("49 0000400a 'N' 0001 't' 00000002 'ok'") is the shape of every table in these tests.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "protocol/bytes.hpp"

namespace walferry::test {

// Throws std::invalid_argument on anything but hexadecimal pairs, blanks and 'quoted text'.
[[nodiscard]] std::vector<std::byte> wire(std::string_view notation);

// Lower-case hexadecimal, for comparing bytes so that a failure can be read.
[[nodiscard]] std::string hex(Bytes bytes);

}  // namespace walferry::test
