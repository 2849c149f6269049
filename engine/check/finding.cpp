#include "engine/check/finding.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <boost/json.hpp>

namespace walferry {
namespace {

std::size_t count(const std::vector<Finding>& findings, Severity severity) {
  return static_cast<std::size_t>(std::count_if(
      findings.begin(), findings.end(), [severity](const Finding& finding) { return finding.severity == severity; }));
}

bool failed(const std::vector<Finding>& findings, std::string_view id) {
  return std::any_of(findings.begin(), findings.end(),
                     [id](const Finding& finding) { return finding.severity == Severity::Fail && finding.id == id; });
}

std::string label(Severity severity, bool color) {
  const std::string_view name = to_string(severity);
  if (!color) return std::string{name};
  switch (severity) {
    case Severity::Pass:
      return fmt::format("\033[32m{}\033[0m", name);
    case Severity::Warn:
      return fmt::format("\033[33m{}\033[0m", name);
    case Severity::Fail:
      return fmt::format("\033[1;31m{}\033[0m", name);
  }
  return std::string{name};
}

// Every line of `text` with `indent` before it, the first one after `lead` as well.
void append_indented(std::string& out, std::string_view lead, std::string_view text) {
  constexpr std::string_view indent = "        ";
  out += indent;
  out += lead;
  for (const char c : text) {
    out += c;
    if (c == '\n') {
      out += indent;
      out.append(lead.size(), ' ');
    }
  }
  out += '\n';
}

}  // namespace

std::string_view to_string(Severity severity) {
  switch (severity) {
    case Severity::Pass:
      return "PASS";
    case Severity::Warn:
      return "WARN";
    case Severity::Fail:
      return "FAIL";
  }
  return "FAIL";
}

std::string render_text(const std::vector<Finding>& findings, bool color) {
  std::string text;
  for (const Finding& finding : findings) {
    text += fmt::format("{}  {}: {}\n", label(finding.severity, color), finding.id, finding.title);
    if (!finding.detail.empty()) append_indented(text, "", finding.detail);
    if (!finding.remedy.empty()) append_indented(text, "Remedy: ", finding.remedy);
  }
  const std::size_t fails = count(findings, Severity::Fail);
  const std::size_t warns = count(findings, Severity::Warn);
  const std::string counts = fmt::format("{} FAIL, {} WARN, {} PASS", fails, warns, count(findings, Severity::Pass));
  const Severity worst = fails > 0 ? Severity::Fail : warns > 0 ? Severity::Warn : Severity::Pass;
  text += fmt::format("verdict: {} ({}): {}\n", label(worst, color), counts,
                      fails > 0 ? "a migration would be refused; follow the remedies of the FAIL lines and check again"
                      : warns > 0 ? "a migration can start; read the WARN lines first"
                                  : "a migration can start");
  return text;
}

std::string render_json(const std::vector<Finding>& findings) {
  boost::json::array array;
  for (const Finding& finding : findings) {
    array.emplace_back(boost::json::object{{"severity", to_string(finding.severity)},
                                           {"id", finding.id},
                                           {"title", finding.title},
                                           {"detail", finding.detail},
                                           {"remedy", finding.remedy}});
  }
  return boost::json::serialize(boost::json::object{{"ok", count(findings, Severity::Fail) == 0},
                                                    {"exit_code", exit_code(findings)},
                                                    {"fail", count(findings, Severity::Fail)},
                                                    {"warn", count(findings, Severity::Warn)},
                                                    {"pass", count(findings, Severity::Pass)},
                                                    {"findings", std::move(array)}});
}

int exit_code(const std::vector<Finding>& findings) {
  if (failed(findings, "source.connection")) return 5;
  if (failed(findings, "target.connection")) return 6;
  return count(findings, Severity::Fail) > 0 ? 2 : 0;
}

}  // namespace walferry
