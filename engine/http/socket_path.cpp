#include "engine/http/socket_path.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "engine/error.hpp"

namespace walferry::http {
namespace {

constexpr std::size_t path_bytes_max = sizeof(sockaddr_un::sun_path) - 1;

}  // namespace

SocketPath::SocketPath(const std::filesystem::path& path) : text_(path.string()) {
  if (text_.size() <= path_bytes_max) return;
  const std::filesystem::path directory = path.parent_path();
  directory_ = ::open(directory.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (directory_ < 0) {
    throw Error{{.kind = ErrorKind::State},
                fmt::format("cannot open the directory {} of the control socket: {}", directory.string(),
                            std::strerror(errno))};
  }
  text_ = fmt::format("/proc/self/fd/{}/{}", directory_, path.filename().string());
}

SocketPath::~SocketPath() {
  if (directory_ >= 0) ::close(directory_);
}

}  // namespace walferry::http
