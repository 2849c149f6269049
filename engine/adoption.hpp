// A target that holds the data already: loaded from a dump, or a promoted physical copy of the source.
//
// What ties it to the stream is one LSN of the source: the target holds every transaction that committed before it and
// none that committed later. The slot, and the publication that it reads, were made before that LSN. A physical copy
// bears the source's system identifier, so that the two ends are told apart by what only one of them can have. Pure
// questions, nothing is changed on either end. Called by the check, by setup and by cleanup.
#pragma once

#include <optional>
#include <string>

#include "engine/catalog.hpp"
#include "engine/pg/conninfo.hpp"
#include "engine/pg/session.hpp"
#include "protocol/lsn.hpp"

namespace walferry {

// Whether both sessions are of one running server: a lock taken in one of them is seen in the other. It blocks nobody
// and goes at once.
[[nodiscard]] bool same_server(pg::Session& one, pg::Session& other);

// Where the target left the source's timeline when it was promoted: it replayed everything before this LSN and nothing
// later. Nothing where it is no promoted physical copy, or where a role may not read the history of its timelines.
[[nodiscard]] std::optional<Lsn> branch_point(pg::Session& source, pg::Session& target);

struct AdoptionPlan {
  pg::ConnInfo source;
  pg::ConnInfo target;
  std::string slot;
  bool own_publication = true;         // named after the slot; else the ones that the user named exist
  bool replica_identity_full = false;  // on tables without a key
};

// What to do, with commands to paste, so that there is an LSN to adopt at. `catalog`: the source's selected tables.
[[nodiscard]] std::string how_to_adopt(const AdoptionPlan& plan, Catalog catalog);

}  // namespace walferry
