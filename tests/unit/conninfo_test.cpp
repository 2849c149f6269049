#include "engine/pg/conninfo.hpp"

#include <doctest/doctest.h>
#include <libpq-fe.h>
#include <stdlib.h>

#include <memory>
#include <string>

using namespace walferry;
using pg::ConnInfo;

namespace {

// What parsing fails with; "" when it does not fail.
std::string refusal(std::string_view text) {
  try {
    static_cast<void>(ConnInfo::parse(text, Side::Source));
    return "";
  } catch (const Error& error) {
    CHECK(error.kind() == ErrorKind::Usage);
    CHECK(error.side() == Side::Source);
    return error.what();
  }
}

bool holds(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("a URI and a keyword string name the same server") {
  const ConnInfo uri = ConnInfo::parse("postgresql://app:geheim@db.example:5433/shop?sslmode=require", Side::Source);
  const ConnInfo words =
      ConnInfo::parse("host=db.example port=5433 user=app password=geheim dbname=shop sslmode=require", Side::Source);
  CHECK(uri.parameters() == words.parameters());
  CHECK(uri.get("host") == "db.example");
  CHECK(uri.get("password") == "geheim");
  CHECK_FALSE(uri.get("hostaddr").has_value());
  CHECK(uri.side() == Side::Source);
}

TEST_CASE("only what was given is kept") {
  CHECK(ConnInfo::parse("host=h dbname=d", Side::Source).parameters().size() == 2);
  CHECK_FALSE(ConnInfo::parse("host=h dbname=d port=''", Side::Source).get("port").has_value());
}

TEST_CASE("a server is printed without its password") {
  CHECK(ConnInfo::parse("postgresql://app:geheim@db.example:5433/shop", Side::Source).redacted() ==
        "app@db.example:5433/shop");
  CHECK(ConnInfo::parse("hostaddr=10.0.0.1 dbname=shop password=geheim", Side::Source).redacted() == "10.0.0.1/shop");
  CHECK(ConnInfo::parse("service=prod password=geheim", Side::Source).redacted() == "service=prod");
}

TEST_CASE("what is kept without secrets names the same server when it is parsed again") {
  for (const std::string_view text :
       {"host=h dbname=d", "postgresql://app:geheim@db.example:5433/shop?sslpassword=geheim&sslmode=require",
        R"(host='/tmp/my socket' dbname='it\'s')", R"(host=h dbname='back\\slash and \'quote\'' password='geheim too')",
        "postgresql://h/d?application_name=a%20b%27c%5Cd", "service=prod", "host=a,b port=1,2 dbname=d password=geheim",
        "host=h dbname=d options='-c search_path=a,b'"}) {
    CAPTURE(text);
    const ConnInfo given = ConnInfo::parse(text, Side::Target);
    const std::string kept = given.without_secrets();
    CHECK_FALSE(holds(kept, "geheim"));
    const ConnInfo again = ConnInfo::parse(kept, Side::Target);
    for (const auto& [key, value] : given.parameters()) {
      CAPTURE(key);
      const bool secret = key == "password" || key == "sslpassword";
      CHECK(again.get(key) == (secret ? std::nullopt : std::optional{value}));
    }
    CHECK(again.without_secrets() == kept);
  }
}

TEST_CASE("everything that libpq calls a secret is left out of what is kept") {
  const std::unique_ptr<PQconninfoOption, void (*)(PQconninfoOption*)> known{PQconndefaults(), PQconninfoFree};
  REQUIRE(known != nullptr);
  int secrets = 0;
  for (const PQconninfoOption* option = known.get(); option->keyword != nullptr; ++option) {
    if (std::string_view{option->dispchar} != "*") continue;
    ++secrets;
    CAPTURE(option->keyword);
    const ConnInfo info = ConnInfo::parse("host=h dbname=d", Side::Source).with(option->keyword, "geheim");
    CHECK_FALSE(holds(info.without_secrets(), "geheim"));
    CHECK_FALSE(holds(info.redacted(), "geheim"));
  }
  CHECK(secrets > 0);
}

TEST_CASE("a parameter is changed or added without touching the original") {
  const ConnInfo info = ConnInfo::parse("host=h dbname=d", Side::Source);
  CHECK(info.with("dbname", "other").get("dbname") == "other");
  CHECK(info.with("connect_timeout", "5").get("connect_timeout") == "5");
  CHECK(info.with("dbname", "other").parameters().size() == 2);
  CHECK(info.get("dbname") == "d");
  CHECK(info.with("dbname", "other").side() == Side::Source);
}

TEST_CASE("a connection string must name host and database, or a service") {
  CHECK(holds(refusal("host=h"), "names no database"));
  CHECK(holds(refusal("dbname=d"), "names no host"));
  CHECK(holds(refusal("postgresql:///d"), "names no host"));
  CHECK(holds(refusal("postgresql://h"), "names no database"));
  CHECK(holds(refusal("user=app"), "--source"));
  CHECK_FALSE(refusal("").empty());
  CHECK(refusal("service=prod").empty());
  CHECK(refusal("hostaddr=10.0.0.1 dbname=d").empty());
  CHECK(refusal("host=/run/postgresql dbname=d").empty());
}

TEST_CASE("what is no connection string is refused with libpq's reason") {
  CHECK(holds(refusal("host=h dbname=d no_such_option=1"), "no_such_option"));
  CHECK_FALSE(refusal("host").empty());
  CHECK_FALSE(refusal("postgresql://[::1/d").empty());
}

TEST_CASE("a connection string that cannot be read does not show its password in the refusal") {
  for (const std::string_view text :
       {"host=h dbname=d password=very geheim", "host=h dbname=d password='geheim", "postgresql://app:%zzgeheim@h/d",
        "postgresql://app:geheim@[::1]x/d", "postgresql://app:geheim@[]/d", "postgresql://app:geheim@h/d?sslmode",
        "postgresql://h/d?password=%zzgeheim", "postgresql://h/d?password=geheim=geheim"}) {
    CAPTURE(text);
    const std::string why = refusal(text);
    CHECK_FALSE(why.empty());
    CHECK_FALSE(holds(why, "geheim"));
  }
}

TEST_CASE("the environment neither completes a connection string nor outlives forgetting it") {
  for (const char* name : {"PGHOST", "PGHOSTADDR", "PGPORT", "PGDATABASE", "PGUSER", "PGPASSWORD", "PGSERVICE",
                           "PGOPTIONS", "PGPASSFILE", "PGSERVICEFILE", "PGSSLMODE", "PGCONNECT_TIMEOUT"}) {
    setenv(name, "ambient", 1);
  }
  CHECK(holds(refusal("dbname=d"), "names no host"));
  CHECK(holds(refusal("host=h"), "names no database"));
  CHECK(ConnInfo::parse("host=h dbname=d", Side::Source).parameters().size() == 2);

  pg::forget_ambient_connection_settings();
  for (const char* name :
       {"PGHOST", "PGHOSTADDR", "PGPORT", "PGDATABASE", "PGUSER", "PGPASSWORD", "PGSERVICE", "PGOPTIONS"}) {
    CAPTURE(name);
    CHECK(getenv(name) == nullptr);
  }
  for (const char* name : {"PGPASSFILE", "PGSERVICEFILE", "PGSSLMODE", "PGCONNECT_TIMEOUT"}) {
    CAPTURE(name);
    CHECK(getenv(name) != nullptr);
    unsetenv(name);
  }
}
