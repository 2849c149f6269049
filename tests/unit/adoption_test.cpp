#include "engine/adoption.hpp"

#include <doctest/doctest.h>

#include <string>

using namespace walferry;

TEST_CASE("a promoted copy left the source's timeline where its history says so") {
  const TimelineHistory source{.timeline = 1, .file = ""};
  CHECK(branch_point(source, {.timeline = 2, .file = "1\t0/5000060\tno recovery target specified\n"}) ==
        Lsn{0x5000060});
  // Promoted a second time since.
  CHECK(branch_point(source, {.timeline = 3, .file = "# a comment\n\n1\t1/A0\tx\n\n2\t1/B0\ty\n"}) ==
        Lsn{0x1'0000'00A0});
}

TEST_CASE("a source that was promoted itself shares its past with its copies") {
  const TimelineHistory source{.timeline = 3, .file = "1\t0/10\tx\n2\t0/20\ty\n"};
  CHECK(branch_point(source, {.timeline = 4, .file = "1\t0/10\tx\n2\t0/20\ty\n3\t0/30\tz\n"}) == Lsn{0x30});
  // Other words for the same leap.
  CHECK(branch_point(source, {.timeline = 4, .file = "1\t0/10\ta\n2\t0/20\tb\n3\t0/30\tc\n"}) == Lsn{0x30});
}

TEST_CASE("timelines of one number and another past are not one") {
  const TimelineHistory source{.timeline = 2, .file = "1\t0/10\tx\n"};
  CHECK_FALSE(branch_point(source, {.timeline = 3, .file = "1\t0/18\tx\n2\t0/30\ty\n"}));
  CHECK_FALSE(branch_point(source, {.timeline = 2, .file = "1\t0/18\tx\n"}));
}

TEST_CASE("without a branch there is no point") {
  CHECK_FALSE(branch_point({.timeline = 1, .file = ""}, {.timeline = 1, .file = ""}));
  // The ends the wrong way round.
  CHECK_FALSE(branch_point({.timeline = 2, .file = "1\t0/10\tx\n"}, {.timeline = 1, .file = ""}));
  CHECK_FALSE(branch_point({.timeline = 1, .file = ""}, {.timeline = 2, .file = "1\tnonsense\tx\n"}));
  CHECK_FALSE(branch_point({.timeline = 1, .file = ""}, {.timeline = 2, .file = "1"}));
}

TEST_CASE("what to do names the publication, the slot and both ends") {
  Catalog catalog;
  Table table;
  table.name = {"app", "odd \"name"};
  table.identity_columns = {"id"};
  catalog.tables.push_back(table);
  table.name = {"app", "keyless"};
  table.identity_columns.clear();
  catalog.tables.push_back(table);
  AdoptionPlan plan{.source = pg::ConnInfo::parse("host=old dbname=shop password=secret", Side::Source),
                    .target = pg::ConnInfo::parse("host=new dbname='a$b'", Side::Target),
                    .slot = "walferry_shop"};
  std::string text = how_to_adopt(plan, catalog);
  CAPTURE(text);
  CHECK(text.find("CREATE PUBLICATION \"walferry_shop\" FOR TABLE ONLY \"app\".\"odd \"\"name\" WITH") !=
        std::string::npos);
  CHECK(text.find("CREATE_REPLICATION_SLOT \"walferry_shop\" LOGICAL pgoutput EXPORT_SNAPSHOT;") != std::string::npos);
  CHECK(text.find("pg_create_logical_replication_slot('walferry_shop', 'pgoutput')") != std::string::npos);
  CHECK(text.find("a\\$b") != std::string::npos);
  CHECK(text.find("secret") == std::string::npos);
  CHECK(text.find("keyless") == std::string::npos);
  plan.replica_identity_full = true;
  text = how_to_adopt(plan, catalog);
  CHECK(text.find("ALTER TABLE \"app\".\"keyless\" REPLICA IDENTITY FULL;") != std::string::npos);
  CHECK(text.find(", ONLY \"app\".\"keyless\" WITH") != std::string::npos);
  catalog.tables.back().full_identity_serves = false;
  CHECK(how_to_adopt(plan, catalog).find("keyless") == std::string::npos);
  plan.own_publication = false;
  CHECK(how_to_adopt(plan, catalog).find("CREATE PUBLICATION") == std::string::npos);
}
