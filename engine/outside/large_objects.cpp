#include "engine/outside/large_objects.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <future>
#include <map>
#include <set>

#include "engine/schema/transaction.hpp"

namespace walferry::outside {
namespace {

constexpr std::string_view record = "walferry.large_objects";
constexpr std::size_t batch_objects_max = 1'000;
constexpr std::int64_t batch_bytes_max = std::int64_t{64} << 20;
constexpr std::size_t send_bytes = std::size_t{64} << 10U;

// What must be equal of one object, and its size.
struct State {
  std::string contents;  // hash; empty for an object without data
  std::string attributes;
  std::int64_t bytes = 0;
};

using States = std::map<std::uint32_t, State>;

// Owner, grants and comment in one text; the grants by name, since ids differ between clusters.
std::string attributes_sql(const LargeObjectOptions& options) {
  const std::string comment = "coalesce(pg_catalog.obj_description(m.oid, 'pg_largeobject'), '')";
  if (!options.owners) return comment;
  return "pg_catalog.pg_get_userbyid(m.lomowner) || '|' || (SELECT coalesce(pg_catalog.string_agg(pg_catalog.format("
         "'%s=%s%s', pg_catalog.pg_get_userbyid(g.grantee), g.privilege_type, g.is_grantable), ',' ORDER BY "
         "pg_catalog.pg_get_userbyid(g.grantee)::text COLLATE \"C\", g.privilege_type), '') FROM "
         "pg_catalog.aclexplode(coalesce(m.lomacl, pg_catalog.acldefault('L', m.lomowner))) g) || '|' || " +
         comment;
}

States read_states(pg::Session& session, bool by_pages, const LargeObjectOptions& options) {
  const std::string sql =
      by_pages
          ? fmt::format(
                "SELECT m.oid, coalesce(d.hash, ''), {}, coalesce(d.bytes, 0) FROM pg_catalog.pg_largeobject_metadata "
                "m "
                "LEFT JOIN (SELECT loid, sum(pg_catalog.length(data)) AS bytes, pg_catalog.encode(pg_catalog.sha256("
                "pg_catalog.convert_to(pg_catalog.string_agg(pageno || ':' || "
                "pg_catalog.encode(pg_catalog.sha256(data), "
                "'hex'), ',' ORDER BY pageno), 'UTF8')), 'hex') AS hash FROM pg_catalog.pg_largeobject GROUP BY loid) "
                "d "
                "ON d.loid = m.oid",
                attributes_sql(options))
          : fmt::format(
                "SELECT m.oid, pg_catalog.encode(pg_catalog.sha256(d.data), 'hex'), {}, pg_catalog.length(d.data) FROM "
                "pg_catalog.pg_largeobject_metadata m, LATERAL (SELECT pg_catalog.lo_get(m.oid) AS data OFFSET 0) d",
                attributes_sql(options));
  States states;
  try {
    const pg::Result rows = session.exec(sql);
    for (int row = 0; row < rows.rows(); ++row)
      states.emplace(rows.u32(row, 0), State{rows.str(row, 1), rows.str(row, 2), rows.i64(row, 3)});
  } catch (const Error& error) {
    throw error.during(fmt::format("reading the large objects of the {}", to_string(session.side())));
  }
  return states;
}

std::set<std::uint32_t> read_record(pg::Session& target) {
  std::set<std::uint32_t> ids;
  if (!has_large_object_record(target)) return ids;
  const pg::Result rows = target.exec(fmt::format("SELECT loid FROM {}", record));
  for (int row = 0; row < rows.rows(); ++row) ids.insert(rows.u32(row, 0));
  return ids;
}

std::string array_of(const std::vector<std::uint32_t>& ids) {
  return fmt::format("'{{{}}}'::pg_catalog.oid[]", fmt::join(ids, ","));
}

// ALTER ... OWNER, GRANT and COMMENT statements of these objects as the source has them.
std::string attribute_statements(pg::Session& source, const std::vector<std::uint32_t>& ids,
                                 const LargeObjectOptions& options) {
  const pg::Result rows = source.exec(fmt::format(
      "SELECT pg_catalog.format('ALTER LARGE OBJECT %s OWNER TO %I; ', m.oid, pg_catalog.pg_get_userbyid(m.lomowner)) "
      "|| "
      "CASE WHEN m.lomacl IS NULL THEN '' ELSE pg_catalog.format('REVOKE ALL ON LARGE OBJECT %s FROM PUBLIC, %I; ', "
      "m.oid, pg_catalog.pg_get_userbyid(m.lomowner)) || coalesce((SELECT pg_catalog.string_agg(pg_catalog.format("
      "'GRANT %s ON LARGE OBJECT %s TO %s%s; ', g.privilege_type, m.oid, CASE g.grantee WHEN 0 THEN 'PUBLIC' ELSE "
      "pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(g.grantee)) END, CASE WHEN g.is_grantable THEN "
      "' WITH GRANT OPTION' ELSE '' END), '') FROM pg_catalog.aclexplode(m.lomacl) g), '') END, "
      "coalesce(pg_catalog.format('COMMENT ON LARGE OBJECT %s IS %L; ', m.oid, "
      "pg_catalog.obj_description(m.oid, 'pg_largeobject')), ''), "
      "pg_catalog.obj_description(m.oid, 'pg_largeobject') IS NOT NULL "
      "FROM pg_catalog.pg_largeobject_metadata m WHERE m.oid = ANY ({}) ORDER BY m.oid",
      array_of(ids)));
  std::string statements;
  for (int row = 0; row < rows.rows(); ++row) {
    // The comment first: afterwards the object may be another's.
    if (rows.flag(row, 2)) statements += rows.text(row, 1);
    if (options.owners) statements += rows.text(row, 0);
  }
  return statements;
}

void copy_contents(pg::Session& source, pg::Session& target, const std::vector<std::uint32_t>& ids, bool by_pages) {
  const std::string rows =
      by_pages ? fmt::format(
                     "SELECT loid, pageno::pg_catalog.int8 * (pg_catalog.current_setting('block_size')::"
                     "pg_catalog.int8 / 4), data FROM pg_catalog.pg_largeobject WHERE loid = ANY ({}) ORDER BY "
                     "loid, pageno",
                     array_of(ids))
               : fmt::format("SELECT o, 0::pg_catalog.int8, pg_catalog.lo_get(o) FROM pg_catalog.unnest({}) AS o",
                             array_of(ids));
  target.exec(
      "CREATE TEMPORARY TABLE IF NOT EXISTS walferry_pages (loid pg_catalog.oid, place pg_catalog.int8, data "
      "pg_catalog.bytea); TRUNCATE pg_temp.walferry_pages");
  target.start_copy_in("COPY pg_temp.walferry_pages FROM STDIN WITH (FORMAT binary)");
  source.start_copy_out(fmt::format("COPY ({}) TO STDOUT WITH (FORMAT binary)", rows));
  std::string buffer;
  for (;;) {
    const std::string_view row = source.next_copy_row();
    if (row.data() == nullptr) break;
    buffer += row;
    if (buffer.size() < send_bytes) continue;
    target.put_copy_data(buffer);
    buffer.clear();
  }
  if (!buffer.empty()) target.put_copy_data(buffer);
  target.finish_copy_in();
  target.exec("SELECT count(pg_catalog.lo_put(loid, place, data)) FROM pg_temp.walferry_pages");
}

void remove(pg::Session& target, const std::vector<std::uint32_t>& ids) {
  target.exec(fmt::format(
      "SELECT count(pg_catalog.lo_unlink(m.oid)) FROM pg_catalog.pg_largeobject_metadata m WHERE m.oid = ANY ({0}); "
      "DELETE FROM {1} WHERE loid = ANY ({0})",
      array_of(ids), record));
}

// Ids in an order that keeps each batch small, each batch one transaction of the target.
std::vector<std::vector<std::uint32_t>> batches_of(const std::vector<std::uint32_t>& ids, const States& wanted) {
  std::vector<std::vector<std::uint32_t>> batches;
  std::int64_t bytes = 0;
  for (const std::uint32_t id : ids) {
    const std::int64_t own = wanted.at(id).bytes;
    if (batches.empty() || batches.back().size() >= batch_objects_max || bytes + own > batch_bytes_max) {
      batches.emplace_back();
      bytes = 0;
    }
    bytes += own;
    batches.back().push_back(id);
  }
  return batches;
}

void make_record(pg::Session& target) {
  if (has_large_object_record(target)) return;
  target.exec(
      fmt::format("CREATE SCHEMA IF NOT EXISTS walferry; CREATE TABLE {} (loid pg_catalog.oid PRIMARY KEY)", record));
}

bool same(const State& one, const State& other) {
  return one.contents == other.contents && one.attributes == other.attributes;
}

}  // namespace

LargeObjects count_large_objects(pg::Session& session) {
  const pg::Result row = session.exec(
      "SELECT (SELECT count(*) FROM pg_catalog.pg_largeobject_metadata), "
      "pg_catalog.pg_relation_size('pg_catalog.pg_largeobject'::pg_catalog.regclass)");
  return {.objects = row.i64(0, 0), .bytes = row.i64(0, 0) == 0 ? 0 : row.i64(0, 1)};
}

bool may_read_pages(pg::Session& session) {
  return session.exec("SELECT pg_catalog.has_table_privilege('pg_catalog.pg_largeobject', 'SELECT')").flag(0, 0);
}

bool has_large_object_record(pg::Session& target) {
  return target.exec(fmt::format("SELECT pg_catalog.to_regclass('{}') IS NOT NULL", record)).flag(0, 0);
}

void adopt_large_objects(pg::Session& source, pg::Session& target, bool only_common) {
  if (count_large_objects(target).objects == 0) return;
  make_record(target);
  if (!only_common) {
    target.exec(fmt::format("INSERT INTO {} SELECT oid FROM pg_catalog.pg_largeobject_metadata ON CONFLICT DO NOTHING",
                            record));
    return;
  }
  const std::vector<std::string> common = common_large_objects(source, target);
  for (std::size_t begin = 0; begin < common.size(); begin += batch_objects_max) {
    const std::size_t end = std::min(begin + batch_objects_max, common.size());
    target.exec(fmt::format(
        "INSERT INTO {} SELECT pg_catalog.unnest('{{{}}}'::pg_catalog.oid[]) ON CONFLICT DO NOTHING", record,
        fmt::join(common.begin() + static_cast<std::ptrdiff_t>(begin),
                  common.begin() + static_cast<std::ptrdiff_t>(end), ",")));
  }
}

LargeObjectChanges copy_large_objects(pg::Session& source, pg::Session& target, const LargeObjectOptions& options) {
  LargeObjectChanges changes;
  if (count_large_objects(source).objects == 0 && !has_large_object_record(target)) return changes;
  const bool by_pages = may_read_pages(source) && may_read_pages(target);
  source.exec("BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY");
  std::future<States> of_source =
      std::async(std::launch::async, [&] { return read_states(source, by_pages, options); });
  std::optional<States> there;
  std::exception_ptr failure;
  try {
    there = read_states(target, by_pages, options);
  } catch (...) {
    failure = std::current_exception();  // rethrown below, when the source's thread has ended
  }
  const States wanted = of_source.get();
  if (failure) std::rethrow_exception(failure);

  const std::set<std::uint32_t> ours = read_record(target);
  std::vector<std::uint32_t> write;
  for (const auto& [id, state] : wanted) {
    const auto found = there->find(id);
    if (found != there->end() && same(found->second, state)) continue;
    if (found != there->end() && !ours.contains(id)) {
      throw Error{{ErrorKind::Refused, Side::Target},
                  fmt::format("large object {} exists on the target already and is not walferry's. Nothing was "
                              "overwritten. Remedy: SELECT lo_unlink({}); on the target if it is not needed there",
                              id, id)};
    }
    write.push_back(id);
  }
  std::vector<std::uint32_t> gone;
  for (const std::uint32_t id : ours) {
    if (!wanted.contains(id)) gone.push_back(id);
  }
  if (!write.empty()) make_record(target);
  for (const std::vector<std::uint32_t>& batch : batches_of(write, wanted)) {
    schema::Transaction transaction{target};
    remove(target, batch);
    target.exec(
        fmt::format("SELECT count(pg_catalog.lo_create(o)) FROM pg_catalog.unnest({0}) AS o; "
                    "INSERT INTO {1} SELECT pg_catalog.unnest({0})",
                    array_of(batch), record));
    copy_contents(source, target, batch, by_pages);
    const std::string statements = attribute_statements(source, batch, options);
    if (!statements.empty()) target.exec(statements);
    transaction.commit();
    changes.written += static_cast<std::int64_t>(batch.size());
  }
  if (!gone.empty()) {
    schema::Transaction transaction{target};
    remove(target, gone);
    transaction.commit();
    changes.removed = static_cast<std::int64_t>(gone.size());
  }
  source.exec("COMMIT");
  return changes;
}

std::vector<std::string> common_large_objects(pg::Session& source, pg::Session& target) {
  std::set<std::string> there;
  const pg::Result of_target = target.exec("SELECT oid FROM pg_catalog.pg_largeobject_metadata");
  for (int row = 0; row < of_target.rows(); ++row) there.insert(of_target.str(row, 0));
  std::vector<std::string> common;
  if (there.empty()) return common;
  const pg::Result of_source = source.exec("SELECT oid FROM pg_catalog.pg_largeobject_metadata ORDER BY oid");
  for (int row = 0; row < of_source.rows(); ++row) {
    if (there.contains(of_source.str(row, 0))) common.push_back(of_source.str(row, 0));
  }
  return common;
}

void drop_large_objects(pg::Session& target) {
  const std::set<std::uint32_t> ours = read_record(target);
  const std::vector<std::uint32_t> ids{ours.begin(), ours.end()};
  for (std::size_t begin = 0; begin < ids.size(); begin += batch_objects_max) {
    const std::size_t end = std::min(begin + batch_objects_max, ids.size());
    remove(target, {ids.begin() + static_cast<std::ptrdiff_t>(begin), ids.begin() + static_cast<std::ptrdiff_t>(end)});
  }
}

void forget_large_objects(pg::Session& target) {
  target.exec(fmt::format("DROP TABLE IF EXISTS {}", record));
}

std::string large_object_rows(bool by_pages, bool only_recorded) {
  const std::string which = only_recorded ? fmt::format(" WHERE m.oid IN (SELECT loid FROM {})", record) : "";
  if (by_pages) {
    return fmt::format(
        "(SELECT m.oid AS loid, p.pageno, p.data FROM pg_catalog.pg_largeobject_metadata m LEFT JOIN "
        "pg_catalog.pg_largeobject p ON p.loid = m.oid{})",
        which);
  }
  return fmt::format(
      "(SELECT m.oid AS loid, 0 AS pageno, pg_catalog.lo_get(m.oid) AS data FROM pg_catalog.pg_largeobject_metadata "
      "m{})",
      which);
}

}  // namespace walferry::outside
