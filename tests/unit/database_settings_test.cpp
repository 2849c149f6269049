#include "engine/outside/database_settings.hpp"

#include <doctest/doctest.h>

using namespace walferry::outside;

TEST_CASE("a setting is written back as the server stored it") {
  CHECK(set_statement({.role = "", .name = "work_mem", .value = "7MB"}, "d\"b") ==
        "ALTER DATABASE \"d\"\"b\" SET \"work_mem\" TO '7MB'");
  CHECK(set_statement({.role = "app", .name = "search_path", .value = "\"$user\", \"Up.Per\", public"}, "db") ==
        "ALTER ROLE \"app\" IN DATABASE \"db\" SET \"search_path\" TO \"$user\", \"Up.Per\", public");
  CHECK(set_statement({.role = "", .name = "search_path", .value = ""}, "db") ==
        "ALTER DATABASE \"db\" SET \"search_path\" TO ''");
  CHECK(set_statement({.role = "", .name = "my.own", .value = "it's"}, "db") ==
        "ALTER DATABASE \"db\" SET \"my\".\"own\" TO 'it''s'");
}
