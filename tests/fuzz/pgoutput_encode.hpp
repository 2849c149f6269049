// Writes a decoded pgoutput message back to bytes: the oracle of the fuzz targets and of the unit tests.
//
// decode() accepts one spelling of each message, so whatever it accepts must come back byte for byte. A field that is
// dropped, swapped or read with the wrong width shows as a difference.
#pragma once

#include <cstddef>
#include <vector>

#include "protocol/pgoutput.hpp"

namespace walferry::test {

[[nodiscard]] std::vector<std::byte> encode(const pgoutput::Message& message);

}  // namespace walferry::test
