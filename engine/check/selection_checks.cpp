// What a selection of tables carries, and what it cuts off.
#include <fmt/format.h>

#include "engine/check/sections.hpp"

namespace walferry::check {

void check_selection(End& source, const CheckOptions& options, Findings& findings) {
  std::vector<std::string> all;
  for (const Table& table : source.catalog.tables) all.push_back(table.name.text());
  keep_selected(source.catalog, source.session, options.selection);
  std::vector<std::string> selected;
  for (const Table& table : source.catalog.tables) selected.push_back(table.name.text());
  const std::string counts = fmt::format("{} of {} tables are selected", selected.size(), all.size());
  if (selected.empty()) {
    return findings.fail("source.selection", {.title = counts,
                                              .detail = "the rules exclude every table that they include",
                                              .remedy = "correct the patterns"});
  }
  const std::vector<std::string> defaults = defaults_without_sequence(source.session, options.selection);
  if (!defaults.empty()) {
    return findings.fail("source.selection",
                         {.title = counted(defaults.size(), "selected column draws", "selected columns draw") +
                                   " from the identity of a table that is left out",
                          .detail = "an identity's sequence cannot be there without its table: " + listed(defaults, 40),
                          .remedy = "--include-table with that table as well, or give the columns a sequence of "
                                    "their own on the source"});
  }
  findings.pass("source.selection", counts, listed(selected, 60));
  findings.warn(
      "source.selection_limits",
      {.title = "a selection carries tables, and what is made of them",
       .detail = "large objects, rows in tables of extensions and settings of the database are left to the whole "
                 "database; writes are stopped on the selected tables alone, and the source stays open for "
                 "the others after the switch",
       .remedy = "nothing, if that is meant"});
  const std::vector<std::string> keys = keys_left_out(source.session, options.selection);
  if (!keys.empty()) {
    findings.warn("source.selection_keys",
                  {.title = counted(keys.size(), "foreign key leaves", "foreign keys leave") + " the selection",
                   .detail = "not made on the target, since the table referenced is left out: " + listed(keys, 40),
                   .remedy = "--include-table with the tables referenced, if the keys matter"});
  }
  const std::vector<std::string> readers = readers_left_out(source.session, options.selection);
  if (!readers.empty()) {
    findings.warn("source.selection_readers",
                  {.title = counted(readers.size(), "view or function reads", "views and functions read") +
                            " a table that is left out",
                   .detail = "not made on the target: " + listed(readers, 40),
                   .remedy = "create them there yourself, or select what they read"});
  }
}

}  // namespace walferry::check
