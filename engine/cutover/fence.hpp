// The write stop on the source: first a lease, then for good.
//
// The lease is one transaction that holds SHARE ROW EXCLUSIVE on every table: readers go on, writers wait. It falls
// away by itself when walferry dies (the connection ends) or freezes (idle_in_transaction_session_timeout).
// arm() adds, in the same transaction and beside the drain, a statement trigger to each table that refuses writes with
// SQLSTATE 25006, all but this transaction's own. make_durable() makes sessions to come read-only and commits: the
// moment the locks go, the triggers are there. Until that commit the source is as it was. Used by Cutover on pool
// threads, one call at a time.
#pragma once

#include <chrono>
#include <functional>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "engine/catalog.hpp"
#include "engine/selection.hpp"

namespace walferry::cutover {

// A table by its name and by what it is to the source: another may get its name.
struct FencedTable {
  QualifiedName name;
  RelationId id{};
  bool holds_rows = true;

  bool operator==(const FencedTable&) const = default;
};

// By name, as the catalog has them.
[[nodiscard]] std::vector<FencedTable> fenced_tables(const Catalog& catalog);

// Tables to which writes cannot be stopped, because their owner is a role that ours is no member of; a few of them.
[[nodiscard]] std::vector<std::string> unfenceable_tables(pg::Session& source);

struct FenceRequest {
  std::vector<QualifiedName> tables;
  std::chrono::steady_clock::time_point deadline;
  // What no lock on these tables stops is waited for as well.
  bool new_tables = true;
  bool large_objects = true;
  // After a try that was given up: who holds the locks, and for how long all such tries have held up writers. From the
  // calling thread.
  std::function<void(const std::string& holders, std::chrono::milliseconds delayed)> on_waiting = {};
};

struct ArmRequest {
  std::string migration;
  std::vector<FencedTable> tables;
  std::string message;  // to whoever tries to write
  std::chrono::steady_clock::time_point deadline;
  std::stop_token stop = {};  // looked at every hundred tables
};

struct Raised {
  std::chrono::steady_clock::time_point since;  // from when on no new write can have begun
  std::chrono::milliseconds delayed{0};         // for which writers were held up by tries that were given up
};

class Fence {
 public:
  // A session ready to raise the fence; nothing is blocked yet.
  [[nodiscard]] static Fence prepare(const pg::ConnInfo& source, const std::string& migration);

  // Takes the locks. Each try waits only briefly, because everybody else's writes queue behind a waiting lock; between
  // tries the application goes on. Throws Error{Timeout} at the deadline.
  Raised raise(const FenceRequest& request);

  // What takes a time for each table; nobody else sees it before make_durable(). Stopped, it leaves a fence that can
  // only be lifted.
  void arm(const ArmRequest& request);

  // Throws Error{Timeout} when the lease has fallen away.
  void require_held();
  // For good. Throws Error{Refused} where the source's tables are not those that were armed. With a selection the other
  // tables, and the database, stay open.
  void make_durable(const SelectionRules& selection);
  // Whether that went so far that a failure leaves open what the source did.
  [[nodiscard]] bool commit_begun() const { return commit_begun_; }
  // Lifts the lease; the source is writable again. Never throws: a lost connection has lifted it already.
  void lift() noexcept;

 private:
  explicit Fence(pg::Session session) : session_(std::move(session)) {}
  pg::Session session_;
  bool commit_begun_ = false;
  std::vector<FencedTable> armed_;  // every one of them, or none
};

// The durable fence of a migration, as the source's catalogs show it. Each has its own: others of the same source may
// have been switched before.
[[nodiscard]] bool durable_fence_stands(pg::Session& source, const std::string& migration);
[[nodiscard]] bool any_durable_fence_stands(pg::Session& source);
// Something of it is there, closed or opened.
[[nodiscard]] bool fence_remains(pg::Session& source, const std::string& migration);
// The same of the migration's, once no backend that might still commit one is left: terminates the fence's sessions and
// waits until they are gone. Throws Error{Connection} where the server cannot know.
[[nodiscard]] bool settle_durable_fence(const pg::ConnInfo& source, const std::string& migration);
// Lets everybody write again at once, without a lock on any table: the triggers stay, and do nothing.
void open_durable_fence(pg::Session& source, const std::string& migration);
// Opens it, and removes what is left of it: the triggers where nobody holds a lock on their table, and, when all are
// gone, the function and, when it is empty then, schema walferry. The tables whose triggers stay, those among them that
// it did not come to before the deadline: safe to repeat.
[[nodiscard]] std::vector<std::string> remove_durable_fence(
    pg::Session& source, const std::string& migration,
    std::chrono::steady_clock::time_point deadline = std::chrono::steady_clock::time_point::max());

}  // namespace walferry::cutover
