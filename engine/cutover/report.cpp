#include <boost/json.hpp>

#include "engine/cutover/cutover.hpp"
#include "engine/http/status_json.hpp"

namespace walferry::cutover {
namespace {

namespace json = boost::json;

json::object end_json(const DatabaseIdentity& identity) {
  return {{"system_identifier", identity.system_identifier},
          {"database", identity.database},
          {"database_oid", identity.database_oid},
          {"timeline", identity.timeline},
          {"server_version", identity.server_version}};
}

json::array tables_json(const VerifyReport& verification) {
  json::array tables;
  for (const TableComparison& table : verification.tables) {
    tables.push_back(json::object{{"name", table.name.text()},
                                  {"rows_source", table.rows_source},
                                  {"rows_target", table.rows_target},
                                  {"hash_source", table.hash_source},
                                  {"hash_target", table.hash_target},
                                  {"equal", table.equal},
                                  {"note", table.note}});
  }
  return tables;
}

json::array sequences_json(const VerifyReport& verification) {
  json::array sequences;
  for (const SequenceComparison& sequence : verification.sequences) {
    sequences.push_back(json::object{{"name", sequence.name.text()},
                                     {"source", json_of(sequence.source)},
                                     {"target", json_of(sequence.target)},
                                     {"equal", sequence.equal},
                                     {"note", sequence.note}});
  }
  return sequences;
}

json::array names_json(const std::vector<QualifiedName>& names) {
  json::array list;
  for (const QualifiedName& name : names) list.push_back(json::string{name.text()});
  return list;
}

}  // namespace

std::string render_json(const Report& report, const Ends& ends) {
  json::array steps;
  for (const Step& step : report.steps) {
    steps.push_back(json::object{{"name", step.name}, {"ms", step.milliseconds}, {"lsn", step.lsn.to_string()}});
  }
  json::array blockers;
  for (const std::string& blocker : report.blockers) blockers.push_back(json::string{blocker});
  json::array notes;
  for (const std::string& note : report.notes) notes.push_back(json::string{note});
  json::object object{
      {"schema_version", 1},
      {"result", report.result},
      {"error", report.error},
      {"writes_stopped_ms", report.writes_stopped_ms},
      {"writes_delayed_ms", report.writes_delayed_ms},
      {"fence_lsn", report.fence_lsn.to_string()},
      {"applied_lsn", report.applied_lsn.to_string()},
      {"source", end_json(ends.source)},
      {"target", end_json(ends.target)},
      {"blockers", std::move(blockers)},
      {"steps", std::move(steps)},
      {"notes", std::move(notes)},
      {"back", report.back},
      {"way_back_begins", report.way_back_begins ? json::value(report.way_back_begins.to_string()) : json::value()},
      {"skips", json::parse(http::skips_json(report.skips))}};
  if (report.verification) {
    object["compared_at"] = report.compared_at.to_string();
    object["touched_rows"] = report.touched_rows;
    object["verified_equal"] = report.verification->equal;
    object["tables"] = tables_json(*report.verification);
    object["sequences"] = sequences_json(*report.verification);
    object["missing_on_target"] = names_json(report.verification->missing_on_target);
    object["missing_on_source"] = names_json(report.verification->missing_on_source);
  }
  return json::serialize(object);
}

}  // namespace walferry::cutover
