#include <doctest/doctest.h>

#include "engine/ddl/command.hpp"
#include "engine/ddl/inventory.hpp"
#include "engine/ddl/statement.hpp"

namespace walferry::ddl {
namespace {

std::string found(std::string_view text, std::string_view tag, std::size_t from = 0) {
  const auto answer = find_statement(text, tag, from);
  return answer ? answer->statement : "(none)";
}

TEST_CASE("the innermost SQL statement on the stack is the command's text") {
  const std::string own = "PL/pgSQL function walferry.note() line 15 at GET DIAGNOSTICS";
  CHECK(command_text("CREATE TABLE a ()", own) == "CREATE TABLE a ()");
  CHECK(command_text("SELECT f()", own + "\nSQL statement \"CREATE TABLE a\n ()\"\nPL/pgSQL function f() line 3 at SQL "
                                         "statement\nSQL statement \"SELECT g()\"\nPL/pgSQL function h() line 1") ==
        "CREATE TABLE a\n ()");
  CHECK(command_text("SELECT f()", own + "\nSQL statement \"DROP TABLE a\"") == "DROP TABLE a");
  CHECK(!command_text("SELECT f()", own + "\nSQL function \"f\" statement 1"));
}

TEST_CASE("of several statements the one that fits the tag is found, each in its turn") {
  const std::string text =
      "CREATE UNIQUE INDEX i ON t (a); INSERT INTO t VALUES (';'); CREATE OR REPLACE VIEW v AS SELECT 1;"
      "CREATE INDEX j ON t (b)";
  CHECK(found(text, "CREATE INDEX") == "CREATE UNIQUE INDEX i ON t (a)");
  const auto view = find_statement(text, "CREATE VIEW", 1);
  REQUIRE(view);
  CHECK(view->statement == " CREATE OR REPLACE VIEW v AS SELECT 1");
  CHECK(found(text, "CREATE INDEX", view->next) == "CREATE INDEX j ON t (b)");
  // Sent again, it begins anew.
  CHECK(found(text, "CREATE VIEW", 4) == " CREATE OR REPLACE VIEW v AS SELECT 1");
  CHECK(found(text, "DROP TABLE") == "(none)");
}

TEST_CASE("next to a statement that may run others nothing is certain") {
  CHECK(found("SELECT f(); CREATE TABLE a ()", "CREATE TABLE") == "(none)");
  CHECK(found("DO $$ BEGIN END $$; CREATE TABLE a ()", "CREATE TABLE") == "(none)");
  CHECK(found("SELECT f()", "CREATE TABLE") == "(none)");
  CHECK(found("/* a; b */ CREATE TABLE a () -- c; d", "CREATE TABLE") != "(none)");
}

TEST_CASE("the body of a function is one statement with it") {
  const std::string atomic =
      "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; SELECT 2; END";
  CHECK(found(atomic + "; CREATE TABLE a ()", "CREATE FUNCTION") == atomic);
  CHECK(found("CREATE FUNCTION f() RETURNS int AS $$ SELECT 1; $$ LANGUAGE sql", "CREATE FUNCTION") ==
        "CREATE FUNCTION f() RETURNS int AS $$ SELECT 1; $$ LANGUAGE sql");
}

TEST_CASE("CONCURRENTLY goes, in the commands that know it and nowhere else") {
  CHECK(for_transaction("CREATE INDEX CONCURRENTLY i ON t (a)") == "CREATE INDEX  i ON t (a)");
  CHECK(for_transaction("drop index concurrently if exists i") == "drop index  if exists i");
  CHECK(for_transaction("ALTER TABLE p DETACH PARTITION q CONCURRENTLY") == "ALTER TABLE p DETACH PARTITION q ");
  CHECK(for_transaction("ALTER TABLE t ADD COLUMN concurrently int") == "ALTER TABLE t ADD COLUMN concurrently int");
}

TEST_CASE("only a rewrite that gives the same values everywhere is trusted") {
  CHECK(!rewrite_doubt("ALTER TABLE t ADD COLUMN r float8 DEFAULT random()", 2).empty());
  CHECK(!rewrite_doubt("ALTER TABLE t ADD COLUMN s serial", 2).empty());
  CHECK(rewrite_doubt("ALTER TABLE t ADD COLUMN d int GENERATED ALWAYS AS (n * 2) STORED", 2).empty());
  CHECK(rewrite_doubt("ALTER TABLE t ALTER COLUMN n TYPE bigint", 4).empty());
  CHECK(rewrite_doubt("ALTER TABLE t ALTER COLUMN n TYPE int USING (n::int)", 4).empty());
  CHECK(!rewrite_doubt("ALTER TABLE t ALTER COLUMN n TYPE text USING f(n)", 4).empty());
  CHECK(!rewrite_doubt("ALTER TABLE t ALTER COLUMN n TYPE timestamptz USING current_timestamp", 4).empty());
  CHECK(rewrite_doubt("ALTER TABLE t SET UNLOGGED", 1).empty());
}

TEST_CASE("a message of a subtransaction that was rolled back is none") {
  Reader reader;
  reader.set_secret("s");
  const std::string drop =
      R"({"secret": "s", "event": "ddl_command_end", "tag": "DROP TABLE", "role": "r", "query": "DROP TABLE public.t",)"
      R"( "context": "own", "at": 1.5, "settings": {}, "transactions": [3, 5, 7],)"
      R"( "objects": [{"type": "table", "identity": "public.t"}]})";
  const std::vector<Xid> aborted{Xid{4}, Xid{5}};
  CHECK(!reader.accept(drop, {.lsn = Lsn{1}, .commit_lsn = Lsn{2}, .xid = Xid{3}, .aborted = aborted}));
  const std::vector<Xid> others{Xid{4}, Xid{6}};
  CHECK(reader.accept(drop, {.lsn = Lsn{1}, .commit_lsn = Lsn{2}, .xid = Xid{3}, .aborted = others}));
}

TEST_CASE("messages are put together into a command, and only our own count") {
  Reader reader;
  reader.set_secret("s");
  const Place place{.lsn = Lsn{1}, .commit_lsn = Lsn{2}, .xid = Xid{3}};
  const auto message = [](std::string_view secret, std::string_view event, std::string_view objects) {
    return std::string{R"({"secret": ")"} + std::string{secret} + R"(", "event": ")" + std::string{event} +
           R"(", "tag": "DROP TABLE", "role": "r", "query": "DROP TABLE public.t", "context": "own", "at": 1.5,)"
           R"( "settings": {"search_path": "public"}, "objects": )" +
           std::string{objects} + "}";
  };
  const std::string drop = message("s", "sql_drop", R"([{"type": "table", "identity": "public.t"}])");
  const std::string end = message("s", "ddl_command_end", "[]");
  CHECK(!reader.accept(message("guess", "sql_drop", "[]"), place));
  CHECK(!reader.accept("no JSON", place));
  CHECK(!reader.accept("", place));
  CHECK(!reader.accept(end, place));  // of temporary objects: nothing to do
  CHECK(!reader.accept(drop, place));
  const auto command = reader.accept(end, place);
  REQUIRE(command);
  CHECK(command->title() == "DROP TABLE public.t");
  CHECK(command->objects.front().dropped);
  CHECK(command->statement == "DROP TABLE public.t");
  CHECK(command->not_executable.empty());
  CHECK(command->to_run() == "SET search_path = public; DROP TABLE public.t");
}

TEST_CASE("inventories survive the journal, and differences name what came, went and changed") {
  const Inventory before{
      {"table a.t", {"a.t", "r p"}}, {"column a.t.c", {"a.t", "integer"}}, {"index a.i", {"a.t", "x"}}};
  CHECK(decode_inventory(encode(before)) == before);
  Inventory now = before;
  now.erase("index a.i");
  now["column a.t.c"].definition = "bigint";
  now["column a.t.d"] = {"a.t", "text"};
  const auto found_now = differences(before, now);
  REQUIRE(found_now.size() == 3);
  CHECK(found_now[0].object == "column a.t.c");
  CHECK(found_now[0].change == "changed");
  CHECK(found_now[1].change == "added");
  CHECK(found_now[2].object == "index a.i");
  CHECK(found_now[2].change == "dropped");
}

}  // namespace
}  // namespace walferry::ddl
