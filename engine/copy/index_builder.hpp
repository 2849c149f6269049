// Builds indexes and constraints of tables whose rows are in, on threads of its own, while other tables are still
// copied.
//
// Owns the build threads and their sessions. Items are idempotent (schema::execute_item looks before it acts), so after
// a crash everything is simply offered again. The first failure stops the rest and is thrown by finish(). Fed by the
// copy threads, finished by Migration.
#pragma once

#include <functional>
#include <memory>
#include <span>

#include "engine/pg/conninfo.hpp"
#include "engine/schema/post_data.hpp"

namespace walferry::copy {

struct IndexBuilderOptions {
  pg::ConnInfo target;
  std::string migration;  // its slot's name
  std::string client_encoding = "UTF8";
  int jobs = 2;
  std::function<void(const std::string&)> on_item = {};  // text of the item being built; from build threads
};

class IndexBuilder {
 public:
  // The plan must outlive the builder.
  explicit IndexBuilder(IndexBuilderOptions options);
  ~IndexBuilder();
  IndexBuilder(const IndexBuilder&) = delete;
  IndexBuilder& operator=(const IndexBuilder&) = delete;

  // Any thread may add; the items must outlive the builder and may be executed in any order.
  void add(std::span<const schema::PostDataItem> items);
  // Waits until everything added is built; throws the first failure.
  void finish();

 private:
  struct Shared;
  std::unique_ptr<Shared> shared_;
};

// Ends what an earlier run, or a connection that was cut, has left at work: it would build the same index.
void end_earlier_builds(const IndexBuilderOptions& options);

// How many workers an index build may have beside its own process, where so many items are built at once on a server
// that has these processors and allows so many workers (max_parallel_maintenance_workers).
[[nodiscard]] int workers_of_build(int allowed, unsigned processors, std::size_t at_once);

// Executes the items one after the other on one session.
void execute_in_order(const IndexBuilderOptions& options, std::span<const schema::PostDataItem> items);

// ANALYZE of every table, `jobs` at a time.
void analyze_tables(const IndexBuilderOptions& options, const std::vector<QualifiedName>& tables);

}  // namespace walferry::copy
