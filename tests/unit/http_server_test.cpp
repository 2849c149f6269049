// The server on a thread of its own with a scripted ControlHandler, asked through both listeners.
#include <doctest/doctest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/string_body.hpp>
#include <boost/beast/http/write.hpp>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <future>
#include <string>
#include <thread>
#include <vector>

#include "engine/error.hpp"
#include "engine/http/client.hpp"
#include "engine/http/server.hpp"

namespace walferry::http {
namespace {

namespace asio = boost::asio;
namespace bhttp = boost::beast::http;
using asio::ip::tcp;

using HttpResponse = bhttp::response<bhttp::string_body>;

class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    std::string name = (std::filesystem::temp_directory_path() / "walferry-http-XXXXXX").string();
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    path_ = name;
  }
  ~TemporaryDirectory() { std::filesystem::remove_all(path_); }
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;

  [[nodiscard]] const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

// Says what it is told to say; its counters are read by the test's thread.
class FakeHandler : public ControlHandler {
 public:
  const Status& status() override { return status_; }
  bool ready() override { return is_ready; }

  asio::awaitable<std::string> cutover_readiness() override {
    if (fails) throw Error{{.kind = ErrorKind::Connection}, "the source is away"};
    co_return std::string{R"(["phase is copy"])"};
  }

  asio::awaitable<CommandOutcome> cutover(CutoverOptions options, std::function<void(std::string)> on_step) override {
    seen = options;
    const asio::any_io_executor executor = co_await asio::this_coro::executor;
    asio::steady_timer pause{executor};
    on_step("guards passed \"well\"");
    while (!go_on) {
      pause.expires_after(std::chrono::milliseconds{2});
      co_await pause.async_wait(asio::use_awaitable);
    }
    on_step("fence raised");
    cutovers_ended += 1;
    if (fails) throw Error{{.kind = ErrorKind::Timeout}, "the drain took too long"};
    CommandOutcome outcome;
    outcome.exit_code = 3;
    outcome.json = "{\n  \"writes_stopped_ms\": 412\n}";
    co_return outcome;
  }

  Skip skip(Lsn lsn, const std::string& reason) override {
    if (lsn != Lsn{0x10}) throw Error{{ErrorKind::Refused}, "the apply stopped at 0/10 and not there"};
    return {.point = {.lsn = lsn, .commit_lsn = lsn, .error = {}}, .reason = reason, .at = {}};
  }
  void accept(const std::string& object, const std::string& reason) override {
    if (object != "view v") throw Error{{ErrorKind::Refused}, "nothing was found of it: " + reason};
  }
  void stop() override { stops += 1; }

  std::atomic<bool> is_ready{true};
  std::atomic<bool> fails{false};
  std::atomic<bool> go_on{true};
  std::atomic<int> stops{0};
  std::atomic<int> cutovers_ended{0};
  CutoverOptions seen;  // of the io thread

 private:
  Status status_ = [] {
    Status status;
    status.phase = Phase::Copy;
    status.activity = "waiting for the target";
    status.source_connected = true;
    return status;
  }();
};

// A served state directory: what the tests talk to.
class Fixture {
 public:
  explicit Fixture(const std::string& subdirectory = "") : socket(directory.path() / subdirectory / "control.sock") {
    std::filesystem::create_directories(socket.parent_path());
    server.emplace(io.get_executor(), handler, ServerOptions{.listen = "127.0.0.1:0", .control_socket = socket});
    server->start();
    const std::string address = server->tcp_address();
    port = static_cast<unsigned short>(std::stoi(address.substr(address.rfind(':') + 1)));
    thread = std::thread{[this] { io.run(); }};
  }

  ~Fixture() {
    stop();
    thread.join();
  }
  Fixture(const Fixture&) = delete;
  Fixture& operator=(const Fixture&) = delete;

  void stop() {
    asio::post(io, [this] { server->stop(); });
  }

  [[nodiscard]] CutoverOptions options_seen() {
    std::promise<CutoverOptions> seen;
    asio::post(io, [&] { seen.set_value(handler.seen); });
    return seen.get_future().get();
  }

  [[nodiscard]] tcp::socket connect() {
    tcp::socket tcp_socket{client_io};
    tcp_socket.connect(tcp::endpoint{asio::ip::address_v4::loopback(), port});
    return tcp_socket;
  }

  [[nodiscard]] HttpResponse ask(bhttp::verb verb, const std::string& target, const std::string& body = "") {
    tcp::socket tcp_socket = connect();
    return ask(tcp_socket, verb, target, body);
  }

  template <typename Socket>
  [[nodiscard]] static HttpResponse ask(Socket& to, bhttp::verb verb, const std::string& target,
                                        const std::string& body = "") {
    bhttp::request<bhttp::string_body> request{verb, target, 11};
    request.set(bhttp::field::host, "localhost");
    request.body() = body;
    request.prepare_payload();
    bhttp::write(to, request);
    boost::beast::flat_buffer buffer;
    bhttp::response_parser<bhttp::string_body> parser;
    parser.skip(verb == bhttp::verb::head);
    bhttp::read(to, buffer, parser);
    return parser.release();
  }

  // Talks to the unix socket without the client under test.
  [[nodiscard]] asio::local::stream_protocol::socket connect_control() {
    asio::local::stream_protocol::socket control{client_io};
    control.connect(asio::local::stream_protocol::endpoint{socket.string()});
    return control;
  }

  TemporaryDirectory directory;
  std::filesystem::path socket;
  FakeHandler handler;
  asio::io_context io{1};
  asio::io_context client_io{1};
  std::optional<Server> server;
  unsigned short port = 0;
  std::thread thread;
};

template <typename Condition>
bool eventually(Condition condition) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds{10};
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::yield();
  }
  return true;
}

TEST_CASE("a skip is taken through the control socket alone, and a refusal keeps its kind") {
  const Fixture fixture;
  const auto taken = request_skip(fixture.socket, Lsn{0x10}, "said \"so\"");
  REQUIRE(taken);
  CHECK(taken->find("\"lsn\":\"0/10\"") != std::string::npos);
  CHECK(taken->find("said \\\"so\\\"") != std::string::npos);
  try {
    const auto other = request_skip(fixture.socket, Lsn{0x20}, "guessed");
    FAIL("taken");
  } catch (const Error& error) {
    CHECK(error.kind() == ErrorKind::Refused);
    CHECK(std::string{error.what()}.find("0/10") != std::string::npos);
  }
  CHECK(!request_skip(fixture.directory.path() / "nobody.sock", Lsn{0x10}, "nobody is there"));
}

TEST_CASE("every read-only path answers on TCP and on the unix socket") {
  Fixture fixture;
  struct Case {
    const char* target;
    const char* type;
    const char* part;
  };
  const Case cases[] = {{"/healthz", "text/plain; charset=utf-8", "ok\n"},
                        {"/readyz", "text/plain; charset=utf-8", "ready\n"},
                        {"/status?x=1", "application/json", "\"phase\":\"copy\""},
                        {"/metrics", "text/plain; version=0.0.4; charset=utf-8", "walferry_phase{phase=\"copy\"} 1\n"},
                        {"/cutover-readiness", "application/json", "[\"phase is copy\"]"},
                        {"/", "text/html; charset=utf-8", "<!doctype html>"}};
  for (const Case& each : cases) {
    CAPTURE(each.target);
    const HttpResponse response = fixture.ask(bhttp::verb::get, each.target);
    CHECK(response.result() == bhttp::status::ok);
    CHECK(response[bhttp::field::content_type] == each.type);
    CHECK(response.body().find(each.part) != std::string::npos);
    const std::optional<Response> control = get(fixture.socket, each.target);
    REQUIRE(control.has_value());
    CHECK(control->status == 200);
    CHECK(control->body == response.body());
  }
}

TEST_CASE("HEAD brings the length and no body, and the connection stays usable") {
  Fixture fixture;
  tcp::socket connection = fixture.connect();
  const HttpResponse head = Fixture::ask(connection, bhttp::verb::head, "/healthz");
  CHECK(head.result() == bhttp::status::ok);
  CHECK(head[bhttp::field::content_length] == "3");
  CHECK(head.body().empty());
  const HttpResponse again = Fixture::ask(connection, bhttp::verb::get, "/healthz");
  CHECK(again.body() == "ok\n");
}

TEST_CASE("what is not ready says why") {
  Fixture fixture;
  fixture.handler.is_ready = false;
  const HttpResponse response = fixture.ask(bhttp::verb::get, "/readyz");
  CHECK(response.result() == bhttp::status::service_unavailable);
  CHECK(response.body() == "target not connected: waiting for the target\n");
}

TEST_CASE("unknown paths, wrong methods and commands over TCP are refused as JSON") {
  Fixture fixture;
  CHECK(fixture.ask(bhttp::verb::get, "/nothing").result() == bhttp::status::not_found);
  CHECK(fixture.ask(bhttp::verb::get, "/nothing").body() == "{\"error\":\"there is nothing at this path\"}\n");
  const HttpResponse deleted = fixture.ask(bhttp::verb::delete_, "/status");
  CHECK(deleted.result() == bhttp::status::method_not_allowed);
  CHECK(deleted[bhttp::field::allow] == "GET, HEAD");
  CHECK(fixture.ask(bhttp::verb::get, "/cutover").result() == bhttp::status::method_not_allowed);
  for (const char* target : {"/cutover", "/stop"}) {
    const HttpResponse response = fixture.ask(bhttp::verb::post, target);
    CHECK(response.result() == bhttp::status::forbidden);
    CHECK(response.body().find("control socket") != std::string::npos);
  }
  CHECK(fixture.handler.stops == 0);
  CHECK(fixture.handler.cutovers_ended == 0);
}

TEST_CASE("a handler that fails is an answer of its own") {
  Fixture fixture;
  fixture.handler.fails = true;
  const HttpResponse response = fixture.ask(bhttp::verb::get, "/cutover-readiness");
  CHECK(response.result() == bhttp::status::internal_server_error);
  CHECK(response.body() == "{\"error\":\"the source is away\"}\n");
}

TEST_CASE("bytes that are not HTTP and bodies that are too long are refused") {
  Fixture fixture;
  tcp::socket connection = fixture.connect();
  asio::write(connection, asio::buffer(std::string_view{"nonsense\r\n\r\n"}));
  boost::beast::flat_buffer buffer;
  HttpResponse response;
  bhttp::read(connection, buffer, response);
  CHECK(response.result() == bhttp::status::bad_request);

  tcp::socket second = fixture.connect();
  asio::write(second,
              asio::buffer(std::string_view{"POST /cutover HTTP/1.1\r\nHost: x\r\nContent-Length: 65537\r\n\r\n"}));
  boost::beast::flat_buffer second_buffer;
  HttpResponse second_response;
  bhttp::read(second, second_buffer, second_response);
  CHECK(second_response.result() == bhttp::status::payload_too_large);
}

TEST_CASE("a cutover reports its steps as they come and then its outcome") {
  Fixture fixture;
  fixture.handler.go_on = false;
  std::vector<std::string> steps;
  const CommandOutcome outcome = request_cutover(
      fixture.socket,
      {.timeout = std::chrono::milliseconds{1'500}, .max_lag = std::chrono::milliseconds{20}, .dry_run = true},
      [&](std::string_view step) {
        steps.emplace_back(step);
        // The second step comes only because the first one has arrived.
        fixture.handler.go_on = true;
      });
  CHECK(steps == std::vector<std::string>{"guards passed \"well\"", "fence raised"});
  CHECK(outcome.exit_code == 3);
  CHECK(outcome.json == "{   \"writes_stopped_ms\": 412 }");
  const CutoverOptions seen = fixture.options_seen();
  CHECK(seen.timeout == std::chrono::milliseconds{1'500});
  CHECK(seen.max_lag == std::chrono::milliseconds{20});
  CHECK(seen.dry_run);
}

TEST_CASE("an error out of a cutover becomes its exit code") {
  Fixture fixture;
  fixture.handler.fails = true;
  const CommandOutcome outcome = request_cutover(fixture.socket, {}, nullptr);
  CHECK(outcome.exit_code == 7);
  CHECK(outcome.json == "{\"error\":\"the drain took too long\"}");
}

TEST_CASE("a client that goes away does not take its cutover along, and a second cutover waits its turn") {
  Fixture fixture;
  fixture.handler.go_on = false;
  {
    auto control = fixture.connect_control();
    asio::write(control,
                asio::buffer(std::string_view{"POST /cutover HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"}));
    std::string first(15, ' ');
    asio::read(control, asio::buffer(first));
    CHECK(first == "HTTP/1.1 200 OK");
    try {
      (void)request_cutover(fixture.socket, {}, nullptr);
      FAIL("two cutovers at once");
    } catch (const Error& error) {
      CHECK(error.kind() == ErrorKind::Refused);
      CHECK(std::string{error.what()}.find("already running") != std::string::npos);
    }
  }
  fixture.handler.go_on = true;
  CHECK(eventually([&] { return fixture.handler.cutovers_ended == 1; }));
  CHECK(request_cutover(fixture.socket, {}, nullptr).exit_code == 3);
}

TEST_CASE("options of a cutover that make no sense are refused") {
  Fixture fixture;
  for (const char* body :
       {"[]", "{", R"({"timeout_ms":-1})", R"({"timeout_ms":"1"})", R"({"dry_run":1})", R"({"x":1})"}) {
    CAPTURE(body);
    auto control = fixture.connect_control();
    CHECK(Fixture::ask(control, bhttp::verb::post, "/cutover", body).result() == bhttp::status::bad_request);
  }
  CHECK(fixture.handler.cutovers_ended == 0);
}

TEST_CASE("stop goes to the handler") {
  Fixture fixture;
  CHECK(request_stop(fixture.socket));
  CHECK(fixture.handler.stops == 1);
}

TEST_CASE("stopping the server while a cutover runs still delivers its outcome") {
  Fixture fixture;
  fixture.handler.go_on = false;
  const CommandOutcome outcome = request_cutover(fixture.socket, {}, [&](std::string_view) {
    fixture.stop();
    fixture.handler.go_on = true;
  });
  CHECK(outcome.exit_code == 3);
}

TEST_CASE("a stopped server closes idle connections, leaves no socket file and lets the io thread end") {
  Fixture fixture;
  tcp::socket idle = fixture.connect();
  CHECK(Fixture::ask(idle, bhttp::verb::get, "/healthz").body() == "ok\n");
  fixture.stop();
  char byte = 0;
  boost::system::error_code error;
  (void)idle.read_some(asio::buffer(&byte, 1), error);
  CHECK(error == asio::error::eof);
  CHECK(eventually([&] { return fixture.io.stopped(); }));
  CHECK_FALSE(std::filesystem::exists(fixture.socket));
  CHECK_FALSE(get(fixture.socket, "/status").has_value());
  CHECK_FALSE(request_stop(fixture.socket));
  CHECK_THROWS_WITH_AS((void)request_cutover(fixture.socket, {}, nullptr), doctest::Contains("no migration is running"),
                       Error);
}

TEST_CASE("a state directory with a long name has a control socket too") {
  Fixture fixture{std::string(120, 'd')};
  const std::optional<Response> response = get(fixture.socket, "/healthz");
  REQUIRE(response.has_value());
  CHECK(response->body == "ok\n");
}

TEST_CASE("the control socket is for its owner only") {
  Fixture fixture;
  struct stat file {};
  REQUIRE(::stat(fixture.socket.c_str(), &file) == 0);
  CHECK((file.st_mode & 0777) == 0600);
}

TEST_CASE("the socket of a dead process is replaced, that of a living one and other files are not") {
  TemporaryDirectory directory;
  const std::filesystem::path socket = directory.path() / "control.sock";
  const int dead = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, socket.c_str(), socket.string().size());
  REQUIRE(::bind(dead, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0);
  ::close(dead);
  CHECK_FALSE(get(socket, "/healthz").has_value());

  FakeHandler handler;
  asio::io_context io{1};
  Server server{io.get_executor(), handler, {.control_socket = socket}};
  server.start();
  CHECK(server.tcp_address().empty());
  Server second{io.get_executor(), handler, {.control_socket = socket}};
  CHECK_THROWS_WITH_AS(second.start(), doctest::Contains("another walferry"), Error);
  second.stop();
  CHECK(std::filesystem::exists(socket));

  const std::filesystem::path file = directory.path() / "file";
  std::ofstream{file} << "mine";
  Server third{io.get_executor(), handler, {.control_socket = file}};
  CHECK_THROWS_WITH_AS(third.start(), doctest::Contains("something else"), Error);
  CHECK(std::filesystem::file_size(file) == 4);
  Server fourth{io.get_executor(), handler, {.control_socket = directory.path() / "none" / "control.sock"}};
  CHECK_THROWS_AS(fourth.start(), Error);
}

TEST_CASE("an address that cannot be used is named together with the remedy") {
  Fixture fixture;
  FakeHandler handler;
  asio::io_context io{1};
  const std::string taken = fixture.server->tcp_address();
  for (const std::string& listen :
       {taken, std::string{"9187"}, std::string{":9187"}, std::string{"127.0.0.1:"}, std::string{"127.0.0.1:70000"},
        std::string{"::1:80"}, std::string{"192.0.2.1:9187"}}) {
    CAPTURE(listen);
    const std::filesystem::path socket = fixture.directory.path() / "other.sock";
    Server server{io.get_executor(), handler, {.listen = listen, .control_socket = socket}};
    try {
      server.start();
      FAIL("listening");
    } catch (const Error& error) {
      CHECK(error.kind() == ErrorKind::Usage);
      CHECK(std::string{error.what()}.find(listen) != std::string::npos);
      CHECK(std::string{error.what()}.find("--listen") != std::string::npos);
    }
    server.stop();
    CHECK_FALSE(std::filesystem::exists(socket));
  }
}

TEST_CASE("more connections than allowed are turned away, and the control socket still answers") {
  Fixture fixture;
  std::vector<tcp::socket> open;
  for (int number = 0; number < 64; ++number) {
    open.push_back(fixture.connect());
    REQUIRE(Fixture::ask(open.back(), bhttp::verb::get, "/healthz").body() == "ok\n");
  }
  tcp::socket extra = fixture.connect();
  boost::beast::flat_buffer buffer;
  HttpResponse response;
  bhttp::read(extra, buffer, response);
  CHECK(response.result() == bhttp::status::service_unavailable);
  CHECK(get(fixture.socket, "/healthz").has_value());
  open.clear();
  CHECK(eventually([&] {
    try {
      return fixture.ask(bhttp::verb::get, "/healthz").result() == bhttp::status::ok;
    } catch (const boost::system::system_error&) {
      return false;
    }
  }));
}

}  // namespace
}  // namespace walferry::http
