#include "engine/adoption.hpp"

#include <doctest/doctest.h>

#include <string>

using namespace walferry;

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
