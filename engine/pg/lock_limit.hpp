// Within the open transaction of a session nothing waits for a lock longer than some seconds, as long as this lives.
//
// Afterwards the limit is what it was. A transaction that was lost meanwhile takes its settings with it. Blocking; used
// where the apply's own session looks at, or changes, the target's schema while somebody may be at work there.
#pragma once

#include <string>

#include "engine/pg/session.hpp"

namespace walferry::pg {

class LockLimit {
 public:
  explicit LockLimit(Session& session);
  LockLimit(const LockLimit&) = delete;
  LockLimit& operator=(const LockLimit&) = delete;
  ~LockLimit();

 private:
  Session& session_;
  std::string before_;
};

}  // namespace walferry::pg
