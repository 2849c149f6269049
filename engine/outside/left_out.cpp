#include "engine/outside/left_out.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "engine/catalog.hpp"

namespace walferry::outside {
namespace {

constexpr std::size_t shown_max = 20;
constexpr std::string_view this_database =
    "(SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())";

std::vector<std::string> first_column(pg::Session& session, const std::string& sql) {
  std::vector<std::string> names;
  const pg::Result rows = session.exec(sql);
  for (int row = 0; row < rows.rows(); ++row) names.push_back(rows.str(row, 0));
  return names;
}

}  // namespace

std::string LeftOut::text() const {
  const std::size_t shown = std::min(names.size(), shown_max);
  std::string list =
      fmt::format("{}", fmt::join(names.begin(), names.begin() + static_cast<std::ptrdiff_t>(shown), ", "));
  if (shown < names.size()) list += fmt::format(" and {} more", names.size() - shown);
  return fmt::format("{} {} ({}): {}", names.size(), names.size() == 1 ? one : many, list, detail);
}

std::vector<LeftOut> find_left_out(pg::Session& source, std::string_view own) {
  struct Question {
    LeftOut kind;
    std::string sql;
  };
  std::vector<Question> questions{
      {{.id = "source.foreign_tables",
        .one = "foreign table",
        .many = "foreign tables",
        .detail = "only the definition moves, with the server and user mapping; their rows stay where they are",
        .remedy =
            "check that the target can reach the foreign servers; passwords of user mappings travel in the schema",
        .names = {}},
       fmt::format("SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) FROM pg_catalog.pg_class c JOIN "
                   "pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'f' AND {} ORDER BY 1",
                   user_schema_condition("n"))},
      {{.id = "source.subscriptions",
        .one = "subscription",
        .many = "subscriptions",
        .detail = "what arrives through it goes on to the target; the subscription itself does not move",
        .remedy = "create it on the target after cutover, with a slot of its own",
        .names = {}},
       fmt::format(
           "SELECT pg_catalog.quote_ident(subname) FROM pg_catalog.pg_subscription WHERE subdbid = {} ORDER BY 1",
           this_database)},
      {{.id = "source.publications",
        .one = "publication",
        .many = "publications",
        .detail = "it does not move, and those who subscribe to it do not follow to the target",
        .remedy = "create it on the target after cutover: CREATE PUBLICATION ...",
        .names = {}},
       fmt::format(
           "SELECT pg_catalog.quote_ident(pubname) FROM pg_catalog.pg_publication WHERE pubname <> {} ORDER BY 1",
           pg::quote_literal(own))},
      {{.id = "source.other_slots",
        .one = "logical replication slot of somebody else",
        .many = "logical replication slots of somebody else",
        .detail = "its reader must be pointed at a new slot on the target",
        .remedy = "create it on the target after cutover, before the applications write there",
        .names = {}},
       fmt::format("SELECT pg_catalog.quote_ident(slot_name) FROM pg_catalog.pg_replication_slots WHERE database = "
                   "pg_catalog.current_database() AND NOT temporary AND slot_name <> {} ORDER BY 1",
                   pg::quote_literal(own))},
      {{.id = "source.database_grants",
        .one = "role with rights on the database itself",
        .many = "roles with rights on the database itself",
        .detail = "CONNECT, TEMPORARY and CREATE on the database, and its owner, are the target's own",
        .remedy = "GRANT ... ON DATABASE <target> TO ...; on the target",
        .names = {}},
       "SELECT DISTINCT CASE g.grantee WHEN 0 THEN 'PUBLIC' ELSE "
       "pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(g.grantee)) END FROM pg_catalog.pg_database d, "
       "pg_catalog.aclexplode(d.datacl) g WHERE d.datname = pg_catalog.current_database() AND g.grantee <> d.datdba "
       "ORDER BY 1"}};
  std::vector<LeftOut> found;
  for (Question& question : questions) {
    question.kind.names = first_column(source, question.sql);
    found.push_back(std::move(question.kind));
  }
  return found;
}

}  // namespace walferry::outside
