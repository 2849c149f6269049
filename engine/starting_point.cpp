#include "engine/starting_point.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "engine/apply/attachment.hpp"
#include "engine/apply/progress.hpp"
#include "engine/error.hpp"
#include "engine/pg/session.hpp"

namespace walferry {
Lsn find_starting_point(const StartingPointQuestion& question) {
  pg::Session source = pg::Session::open(question.source, {.application_name = "walferry"});
  pg::Session target = pg::Session::open(question.target, {.application_name = "walferry"});
  if (read_identity(target).in_recovery) throw apply::standby_error();
  const Lsn held = apply::Progress::of(target, question.migration).read(target);
  const pg::Result slot = source.exec(
      fmt::format("SELECT confirmed_flush_lsn, coalesce(wal_status, '') FROM pg_catalog.pg_replication_slots "
                  "WHERE slot_name = {}",
                  pg::quote_literal(question.migration)));
  if (slot.rows() != 1 || slot.str(0, 1) == "lost") {
    throw Error{
        {ErrorKind::Refused, Side::Source},
        fmt::format(
            "the slot {} is {}: the source has not kept the changes since {}. Nothing was changed. Remedy: `walferry "
            "abort` this migration and begin anew",
            question.migration, slot.rows() == 1 ? "lost" : "gone", held.to_string())};
  }
  const Lsn confirmed = slot.is_null(0, 0) ? Lsn{} : slot.lsn(0, 0);
  const Lsn covered = held < question.spool_begin ? held : std::max(held, question.spool_end);
  if (confirmed > question.idle.beyond(covered)) {
    throw Error{
        {ErrorKind::Refused, Side::Target},
        fmt::format(
            "the source was told to forget everything before {}, but the target stands at {} and the spool reaches "
            "from "
            "{} to {}: the target (or this state directory) has lost transactions. Nothing was changed. Remedy: "
            "abort "
            "this migration and begin anew",
            confirmed.to_string(), held.to_string(), question.spool_begin.to_string(), question.spool_end.to_string())};
  }
  return held;
}

}  // namespace walferry
