// The error of a change that cannot be applied (G3): relation, key, transaction, LSN, cause and remedy.
//
// Made by Pipeline when the outcome of a statement is not what it must be.
#pragma once

#include "engine/apply/pipeline.hpp"
#include "engine/apply/stop.hpp"
#include "engine/error.hpp"

namespace walferry::apply {

// A Stop where the transaction is known.
[[noreturn]] void throw_change_error(const Expected& expected, const Error& cause);

}  // namespace walferry::apply
