#include "engine/store/skips.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>

namespace walferry::store {
namespace {

using std::chrono::milliseconds;
using std::chrono::system_clock;

// what, lsn, commit LSN, xid, error, reason, time: NUL between, which no text from a server or an argument can hold.
constexpr std::size_t field_count = 7;

std::string encode(const Skip& skip) {
  const auto at = std::chrono::duration_cast<milliseconds>(skip.at.time_since_epoch()).count();
  const std::array<std::string, field_count> fields{std::string{to_string(skip.point.what)},
                                                    skip.point.lsn.to_string(),
                                                    skip.point.commit_lsn.to_string(),
                                                    std::to_string(static_cast<std::uint32_t>(skip.point.xid)),
                                                    skip.point.error,
                                                    skip.reason,
                                                    std::to_string(at)};
  std::string text;
  for (const std::string& field : fields) {
    text += field;
    text += '\0';
  }
  return text;
}

template <typename Number>
bool read_number(const std::string& text, Number& number) {
  const auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), number);
  return failure == std::errc{} && end == text.data() + text.size();
}

Skip decode(const std::string& text) {
  std::vector<std::string> fields;
  std::size_t begin = 0;
  for (std::size_t end = text.find('\0'); end != std::string::npos; end = text.find('\0', begin)) {
    fields.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  Skip skip;
  std::uint32_t xid = 0;
  std::int64_t at = 0;
  if (fields.size() == field_count && read_number(fields[3], xid) && read_number(fields[6], at)) {
    const auto lsn = Lsn::parse(fields[1]);
    const auto commit_lsn = Lsn::parse(fields[2]);
    if (lsn && commit_lsn) {
      skip.point = {.what = fields[0] == "ddl" ? StopPoint::What::Ddl : StopPoint::What::Transaction,
                    .lsn = *lsn,
                    .commit_lsn = *commit_lsn,
                    .xid = Xid{xid},
                    .error = fields[4]};
      skip.reason = fields[5];
      skip.at = system_clock::time_point{milliseconds{at}};
      return skip;
    }
  }
  throw Error{{ErrorKind::State}, "the state directory's record of a stop or a skip cannot be read"};
}

}  // namespace

Skips::Skips(Journal& journal) : journal_(journal) {
  if (const auto text = journal_.get(journal_keys::stop)) stop_ = decode(*text).point;
  for (const auto& [lsn, text] : journal_.entries(journal_keys::skips)) {
    Skip skip = decode(text);
    skips_.insert_or_assign(skip.point.lsn, std::move(skip));
  }
}

void Skips::record_stop(const StopPoint& point) {
  if (stop_ && stop_->lsn == point.lsn && stop_->error == point.error) return;
  stop_ = point;
  journal_.put(journal_keys::stop, encode({.point = point, .reason = {}, .at = system_clock::now()}));
}

void Skips::clear_stop() {
  if (!stop_) return;
  stop_.reset();
  journal_.erase(journal_keys::stop);
}

Skip Skips::add(Lsn lsn, const std::string& reason) {
  const std::string at_fault = lsn.to_string();
  if (reason.find_first_not_of(" \t\n") == std::string::npos || reason.find('\0') != std::string::npos) {
    throw Error{{ErrorKind::Usage}, "a skip needs a reason. Remedy: --reason \"...\", which the report will carry"};
  }
  if (!stop_) {
    throw Error{{ErrorKind::Refused},
                fmt::format("nothing was skipped: the apply has not stopped, and only what stops it can be skipped. "
                            "Remedy: `walferry status` shows where it stands; {} is not a stop",
                            at_fault)};
  }
  if (stop_->lsn != lsn) {
    throw Error{{ErrorKind::Refused},
                fmt::format("nothing was skipped: the apply stopped at {} and not at {}. Remedy: read the error in "
                            "`walferry status`, and if exactly that may be left out, give --lsn {}",
                            stop_->lsn.to_string(), at_fault, stop_->lsn.to_string())};
  }
  Skip skip{.point = *stop_, .reason = reason, .at = system_clock::now()};
  journal_.put(std::string{journal_keys::skips} + at_fault, encode(skip));
  skips_.insert_or_assign(lsn, skip);
  return skip;
}

bool Skips::contains(StopPoint::What what, Lsn lsn) const {
  const auto found = skips_.find(lsn);
  return found != skips_.end() && found->second.point.what == what;
}

std::vector<Skip> Skips::list() const {
  std::vector<Skip> list;
  for (const auto& [lsn, skip] : skips_) list.push_back(skip);
  std::ranges::stable_sort(list, {}, &Skip::at);
  return list;
}

}  // namespace walferry::store
