// What a migration does not bring to the target, as far as the source's catalogs show it.
//
// check names it beforehand, the cutover's report afterwards, from this one list. Reads only.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "engine/pg/session.hpp"

namespace walferry::outside {

struct LeftOut {
  std::string id;  // of check's finding
  std::string one;
  std::string many;
  std::string detail;
  std::string remedy;
  std::vector<std::string> names;  // empty: the source has none

  // "2 foreign tables (a, b): only the definition moves ...", for the report.
  [[nodiscard]] std::string text() const;
};

// `own` is the name of walferry's slot and publication, which are no loss.
[[nodiscard]] std::vector<LeftOut> find_left_out(pg::Session& source, std::string_view own);

}  // namespace walferry::outside
