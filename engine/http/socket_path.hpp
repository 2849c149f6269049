// A unix socket's path in a form that fits into sockaddr_un, whatever the length of the state directory's name.
//
// A path over 107 bytes is reached through /proc/self/fd/<directory>/<name>, so the descriptor of the directory must
// live as long as text() is used. Server binds with it, the client connects with it.
#pragma once

#include <filesystem>
#include <string>

namespace walferry::http {

class SocketPath {
 public:
  // Throws Error{State} when the path is too long and its directory cannot be opened.
  explicit SocketPath(const std::filesystem::path& path);
  ~SocketPath();
  SocketPath(const SocketPath&) = delete;
  SocketPath& operator=(const SocketPath&) = delete;

  [[nodiscard]] const std::string& text() const { return text_; }

 private:
  int directory_ = -1;
  std::string text_;
};

}  // namespace walferry::http
