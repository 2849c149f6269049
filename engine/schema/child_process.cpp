#include "engine/schema/child_process.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/close_range.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <string_view>

namespace walferry::schema {
namespace {

constexpr std::size_t messages_bytes_max = 64 * 1024;

// Settings that would choose a server, or carry a secret that belongs to another side.
constexpr std::array ambient_settings{
    "PGHOST",           "PGHOSTADDR",  "PGPORT",    "PGDATABASE", "PGUSER",
    "PGPASSWORD",       "PGSERVICE",   "PGOPTIONS", "PGAPPNAME",  "PGTARGETSESSIONATTRS",
    "PGCLIENTENCODING", "PGDATESTYLE", "PGTZ",      "PGGEQO"};

class Descriptor {
 public:
  Descriptor() = default;
  explicit Descriptor(int number) : number_(number) {}
  Descriptor(Descriptor&& other) noexcept : number_(std::exchange(other.number_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(number_, other.number_);
    return *this;
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() { close(); }

  [[nodiscard]] int get() const { return number_; }
  [[nodiscard]] bool open() const { return number_ >= 0; }
  void close() {
    if (number_ >= 0) ::close(std::exchange(number_, -1));
  }

 private:
  int number_ = -1;
};

struct Pipe {
  Descriptor read_end;
  Descriptor write_end;
};

[[noreturn]] void fail(const ChildCommand& command, std::string_view doing, int code) {
  throw Error{
      {ErrorKind::Schema},
      fmt::format("{} {}: {}. Check that the program can be executed by this user and that limits on processes and "
                  "open files leave room",
                  doing, command.program.string(), std::strerror(code))};
}

Pipe make_pipe(const ChildCommand& command) {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) fail(command, "making a pipe for", errno);
  return {Descriptor{ends[0]}, Descriptor{ends[1]}};
}

std::vector<std::string> child_environment(const ChildCommand& command) {
  std::vector<std::string> result;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view text{*entry};
    const std::string_view name = text.substr(0, text.find('='));
    const bool ambient = std::find(ambient_settings.begin(), ambient_settings.end(), name) != ambient_settings.end();
    const bool replaced = std::any_of(command.environment.begin(), command.environment.end(),
                                      [name](const auto& pair) { return pair.first == name; });
    // walferry's own settings may hold a connection string with a password.
    if (!ambient && !replaced && !name.starts_with("WALFERRY_")) result.emplace_back(text);
  }
  for (const auto& [name, value] : command.environment) result.push_back(name + "=" + value);
  return result;
}

std::vector<char*> pointers(std::vector<std::string>& texts) {
  std::vector<char*> result;
  result.reserve(texts.size() + 1);
  for (std::string& text : texts) result.push_back(text.data());
  result.push_back(nullptr);
  return result;
}

struct ChildDescriptors {
  int input;
  int output;
  int messages;
  int start_failure;
};

// Between fork and exec of a process with threads only async-signal-safe calls are allowed.
[[noreturn]] void become(char* const* argv, char* const* environment, const ChildDescriptors& descriptors,
                         pid_t parent) {
  ::setpgid(0, 0);
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != parent) ::_exit(127);  // the parent died before the line above took effect
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  for (const int number : {SIGPIPE, SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGCHLD}) ::signal(number, SIG_DFL);
  ::umask(077);
  if (::dup2(descriptors.input, 0) >= 0 && ::dup2(descriptors.output, 1) >= 0 && ::dup2(descriptors.messages, 2) >= 0) {
    ::close_range(3, ~0U, CLOSE_RANGE_CLOEXEC);
    ::execve(argv[0], argv, environment);
  }
  const int code = errno;
  // The parent reads this; when it cannot be written the pipe's end tells nothing and exit status 127 remains.
  [[maybe_unused]] const ssize_t written = ::write(descriptors.start_failure, &code, sizeof code);
  ::_exit(127);
}

// Appends what is there; false at end of file.
bool read_some(int descriptor, std::string& into) {
  std::array<char, 65536> buffer;
  for (;;) {
    const ssize_t count = ::read(descriptor, buffer.data(), buffer.size());
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return false;
    into.append(buffer.data(), static_cast<std::size_t>(count));
    return true;
  }
}

void keep_tail(std::string& text) {
  if (text.size() > messages_bytes_max) text.erase(0, text.size() - messages_bytes_max);
}

class RunningChild {
 public:
  RunningChild(pid_t pid, Descriptor output, Descriptor messages)
      : pid_(pid), output_(std::move(output)), messages_(std::move(messages)) {}
  RunningChild(const RunningChild&) = delete;
  RunningChild& operator=(const RunningChild&) = delete;
  // Reached with a live child only when an exception passes: it must not outlive us.
  ~RunningChild() {
    if (pid_ <= 0) return;
    ::kill(-pid_, SIGKILL);
    reap();
  }

  ChildOutcome watch(const ChildCommand& command, const std::stop_token& stop) {
    const Descriptor wake{::eventfd(0, EFD_CLOEXEC)};
    if (!wake.open()) fail(command, "watching", errno);
    const std::stop_callback on_stop{stop, [&wake] {
                                       const std::uint64_t one = 1;
                                       [[maybe_unused]] const ssize_t written = ::write(wake.get(), &one, sizeof one);
                                     }};
    ChildOutcome outcome;
    std::chrono::steady_clock::time_point kill_at{};
    while (output_.open() || messages_.open()) {
      std::array<pollfd, 3> waits{pollfd{output_.get(), POLLIN, 0}, pollfd{messages_.get(), POLLIN, 0},
                                  pollfd{outcome.stopped ? -1 : wake.get(), POLLIN, 0}};
      const int timeout = outcome.stopped ? 50 : -1;
      if (::poll(waits.data(), waits.size(), timeout) < 0 && errno != EINTR) fail(command, "watching", errno);
      if (waits[0].revents != 0 && !read_some(output_.get(), outcome.output)) output_.close();
      if (waits[1].revents != 0 && !read_some(messages_.get(), outcome.messages)) messages_.close();
      keep_tail(outcome.messages);
      if (waits[2].revents != 0) {
        outcome.stopped = true;
        kill_at = std::chrono::steady_clock::now() + command.stop_grace;
        ::kill(-pid_, SIGTERM);
      } else if (outcome.stopped && std::chrono::steady_clock::now() >= kill_at) {
        ::kill(-pid_, SIGKILL);
      }
    }
    outcome.exit_status = reap();
    return outcome;
  }

 private:
  int reap() {
    int status = 0;
    while (::waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
    }
    pid_ = -1;
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
  }

  pid_t pid_;
  Descriptor output_;
  Descriptor messages_;
};

}  // namespace

ChildOutcome run_child(const ChildCommand& command, const std::stop_token& stop) {
  std::vector<std::string> arguments{command.program.string()};
  arguments.insert(arguments.end(), command.arguments.begin(), command.arguments.end());
  std::vector<std::string> environment = child_environment(command);
  const std::vector<char*> argv = pointers(arguments);
  const std::vector<char*> envp = pointers(environment);

  const Descriptor input{::open("/dev/null", O_RDONLY | O_CLOEXEC)};
  if (!input.open()) fail(command, "opening /dev/null for", errno);
  Pipe output = make_pipe(command);
  Pipe messages = make_pipe(command);
  Pipe start_failure = make_pipe(command);
  const ChildDescriptors descriptors{input.get(), output.write_end.get(), messages.write_end.get(),
                                     start_failure.write_end.get()};
  const pid_t parent = ::getpid();
  const pid_t pid = ::fork();
  if (pid < 0) fail(command, "starting", errno);
  if (pid == 0) become(argv.data(), envp.data(), descriptors, parent);
  ::setpgid(pid, pid);  // also done by the child; whoever is first, kill(-pid) works from here on
  RunningChild child{pid, std::move(output.read_end), std::move(messages.read_end)};
  output.write_end.close();
  messages.write_end.close();
  start_failure.write_end.close();

  int code = 0;
  ssize_t count = 0;
  do {
    count = ::read(start_failure.read_end.get(), &code, sizeof code);
  } while (count < 0 && errno == EINTR);
  if (count == static_cast<ssize_t>(sizeof code)) fail(command, "starting", code);
  return child.watch(command, stop);
}

}  // namespace walferry::schema
