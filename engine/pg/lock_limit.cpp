#include "engine/pg/lock_limit.hpp"

#include <spdlog/spdlog.h>

namespace walferry::pg {

LockLimit::LockLimit(Session& session)
    : session_(session), before_(session.exec("SELECT pg_catalog.current_setting('lock_timeout')").str(0, 0)) {
  session_.exec("SET LOCAL lock_timeout = '3s'");
}

LockLimit::~LockLimit() {
  try {
    session_.exec("SET LOCAL lock_timeout = " + quote_literal(before_));
  } catch (const Error& error) {
    spdlog::debug("the transaction is lost, and its settings with it: {}", error.what());
  }
}

}  // namespace walferry::pg
