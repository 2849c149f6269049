// The messages of one transaction that tell of schema changes, one behind the other with a NUL between. Any role may
// write such a message; here each is taken for one that carries the secret.
#include "engine/ddl/command.hpp"
#include "engine/error.hpp"
#include "tests/fuzz/check.hpp"

namespace walferry::test {

void check_input(Bytes bytes) {
  ddl::Reader reader;
  reader.set_secret("s");
  std::string_view rest = as_text(bytes);
  try {
    while (!rest.empty()) {
      const std::size_t end = std::min(rest.find('\0'), rest.size());
      if (const std::optional<ddl::Command> command =
              reader.accept(rest.substr(0, end), {.lsn = Lsn{1}, .commit_lsn = Lsn{2}, .xid = {}})) {
        // Either it can be run as it stands, or it says why not.
        require(command->statement || !command->not_executable.empty());
        require(command->title().starts_with(command->tag));
      }
      rest.remove_prefix(std::min(end + 1, rest.size()));
    }
  } catch (const Error&) {
    // Refused: of another version.
  }
}

}  // namespace walferry::test
