// A transaction of one Session that is rolled back unless committed.
//
// Used where several statements must be there together or not at all. The destructor never throws: a connection that is
// gone has rolled back by itself.
#pragma once

#include "engine/pg/session.hpp"

namespace walferry::schema {

class Transaction {
 public:
  explicit Transaction(pg::Session& session) : session_(session) { session_.exec("BEGIN"); }
  Transaction(const Transaction&) = delete;
  Transaction& operator=(const Transaction&) = delete;
  ~Transaction() {
    if (open_) rollback();
  }

  void commit() {
    session_.exec("COMMIT");
    open_ = false;
  }

 private:
  void rollback() noexcept {
    if (PQstatus(session_.raw()) != CONNECTION_OK) return;
    // The error that brought us here is the one to report; a failed ROLLBACK means the connection is gone.
    const pg::ResultPtr ignored{PQexec(session_.raw(), "ROLLBACK")};
  }

  pg::Session& session_;
  bool open_ = true;
};

}  // namespace walferry::schema
