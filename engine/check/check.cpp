#include "engine/check/check.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <optional>

#include "engine/check/sections.hpp"

namespace walferry {
namespace {

std::string connection_remedy(const Error& error) {
  const std::string_view text = error.what();
  if (text.find("unsupported startup parameter") != std::string_view::npos) {
    return "this is a connection pooler, which refuses startup options: connect to PostgreSQL's own host and port";
  }
  if (text.find("Remedy: ") != std::string_view::npos) {
    return std::string{text.substr(text.find("Remedy: ") + std::string_view{"Remedy: "}.size())};
  }
  return "look into the server's log, mend the connection and check again";
}

void report_unreachable(const Error& error, const std::string& side, check::Findings& findings) {
  if (error.kind() != ErrorKind::Connection) {
    findings.fail(side + ".catalog",
                  {.title = fmt::format("the {}'s catalogs cannot be read", side),
                   .detail = error.what(),
                   .remedy = "connect as a role that may read the catalogs (any ordinary role may by default)"});
    return;
  }
  std::string detail = error.what();
  detail.resize(std::min(detail.find(" Remedy: "), detail.size()));
  findings.fail(
      side + ".connection",
      {.title = fmt::format("the {} cannot be reached", side), .detail = detail, .remedy = connection_remedy(error)});
}

std::optional<check::End> open_side(const pg::ConnInfo& info, check::Findings& findings) {
  const std::string side{to_string(info.side())};
  try {
    check::End end = check::open_end(info);
    findings.pass(side + ".connection", fmt::format("connected to {} as {}{}", info.redacted(), end.role,
                                                    end.superuser ? " (superuser)" : ""));
    return end;
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::Stopped) throw;
    report_unreachable(error, side, findings);
    return std::nullopt;
  }
}

// Runs one part; a connection that breaks meanwhile ends the part and is a finding, too.
void examine(check::Findings& findings, const std::function<void()>& part) {
  try {
    part();
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::Stopped) throw;
    report_unreachable(error, std::string{to_string(error.side())}, findings);
  }
}

}  // namespace

std::vector<Finding> check_migration(const CheckOptions& options) {
  check::Findings findings;
  const bool adopts = options.adopt && !options.pinned;
  std::optional<check::End> source = open_side(options.source, findings);
  std::optional<check::End> target = open_side(options.target, findings);
  if (source && !options.selection.empty()) {
    try {
      check::check_selection(*source, options, findings);
    } catch (const Error& error) {
      if (error.kind() == ErrorKind::Stopped) throw;
      if (error.kind() == ErrorKind::Connection) report_unreachable(error, "source", findings);
      findings.fail("source.selection", {.title = "the selection of tables cannot be made",
                                         .detail = error.what(),
                                         .remedy = "correct the patterns"});
    }
  }
  if (source) {
    examine(findings, [&] { check::check_source(*source, options, findings); });
    examine(findings, [&] { check::check_source_tables(*source, options, findings); });
    if (adopts) examine(findings, [&] { check::check_adopted_source(*source, options, findings); });
  }
  if (target) examine(findings, [&] { check::check_target(*target, options, findings); });
  if (source && target) {
    examine(findings, [&] { check::check_pair(*source, *target, options, findings); });
    if (adopts) examine(findings, [&] { check::check_adopted_target(*source, *target, options, findings); });
  }
  return std::move(findings).take();
}

}  // namespace walferry
