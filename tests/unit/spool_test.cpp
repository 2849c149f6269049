#include "engine/store/spool.hpp"

#include <doctest/doctest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/error.hpp"
#include "tests/unit/state_dir.hpp"

using namespace walferry;
using namespace walferry::store;
using test::StateDir;

namespace {

using Texts = std::vector<std::string>;

Texts texts_in(Bytes rest) {
  Texts texts;
  while (!rest.empty()) texts.emplace_back(as_text(take_message(rest)));
  return texts;
}

// A block that ends with the commit at `end`.
Block whole(const std::string& text, std::uint64_t end) {
  Block block;
  append_message(block.messages, as_bytes(text));
  block.complete_bytes = block.messages.size();
  block.end_lsn = Lsn{end};
  return block;
}

// A piece of the transaction that commits at `final`.
Block piece(const std::string& text, std::uint64_t final) {
  Block block;
  append_message(block.messages, as_bytes(text));
  block.open_final_lsn = Lsn{final};
  return block;
}

// A transaction that ends at `end` and the first piece of the one that commits at `final`.
Block whole_then_piece(const std::string& text, std::uint64_t end, const std::string& begun, std::uint64_t final) {
  Block block = whole(text, end);
  append_message(block.messages, as_bytes(begun));
  block.open_final_lsn = Lsn{final};
  return block;
}

constexpr SpoolLimits roomy{.memory_bytes_max = std::size_t{1} << 20U};
constexpr SpoolLimits no_memory{.memory_bytes_max = 1};

// One run of walferry on a state directory; restart() ends it in good order, crashed() is what a killed one leaves.
class Run {
 public:
  explicit Run(SpoolLimits limits = roomy) : limits_(limits) { open(); }

  Spool* operator->() { return spool_.get(); }

  // Somebody applies: memory may be used.
  Run& applying() {
    spool_->set_disk_only(false);
    return *this;
  }
  void restart() {
    spool_.reset();
    database_.reset();
    open();
  }
  // As another version would have written the blocks.
  void rewrite_in_another_format() {
    spool_.reset();
    std::vector<std::pair<std::string, std::string>> blocks;
    database_->for_each(Database::Family::Blocks,
                        [&](std::string_view key, std::string_view value) { blocks.emplace_back(key, value); });
    for (auto& [key, value] : blocks) {
      ++value.front();
      database_->put(Database::Family::Blocks, key, value, Database::Durability::Synced);
    }
    database_.reset();
  }
  void open_again() { open(); }
  [[nodiscard]] Run crashed() const { return Run{limits_, dir_.copied()}; }

  Texts read() {
    Texts texts;
    while (const auto block = spool_->next()) {
      if (block->kind == Block::Kind::StreamedCommit) {
        texts.push_back("streamed");
        continue;
      }
      for (std::string& text : texts_in(block->messages)) texts.push_back(std::move(text));
    }
    return texts;
  }
  Texts read_again() {
    spool_->rewind();
    return read();
  }

  StreamId stream(const Texts& texts) {
    const StreamId id = spool_->open_stream(Xid{700});
    for (const std::string& text : texts) spool_->append_stream(id, as_bytes(text));
    return id;
  }
  void commit_stream(StreamId id, std::uint64_t end) {
    Block block;
    block.kind = Block::Kind::StreamedCommit;
    block.end_lsn = Lsn{end};
    block.streamed = {.stream = id,
                      .xid = Xid{700},
                      .commit_lsn = Lsn{end - 1},
                      .end_lsn = Lsn{end},
                      .commit_time = {},
                      .chunks = spool_->close_stream(id),
                      .aborted = {}};
    spool_->append(std::move(block));
  }
  Texts stream_texts(StreamId id, std::uint64_t chunks) {
    Texts texts;
    for (std::uint64_t chunk = 0; chunk < chunks; ++chunk) {
      const Chunk value = spool_->stream_chunk(id, chunk);
      for (std::string& text : texts_in(*value)) texts.push_back(std::move(text));
    }
    return texts;
  }
  bool has_chunk(StreamId id, std::uint64_t chunk) {
    try {
      static_cast<void>(spool_->stream_chunk(id, chunk));
      return true;
    } catch (const Error& error) {
      CHECK(error.kind() == ErrorKind::State);
      return false;
    }
  }

 private:
  Run(SpoolLimits limits, StateDir dir) : dir_(std::move(dir)), limits_(limits) { open(); }

  void open() {
    database_ = std::make_unique<Database>(Database::open(dir_.path(), Access::ReadWrite));
    spool_ = std::make_unique<Spool>(*database_, limits_);
  }

  StateDir dir_;
  SpoolLimits limits_;
  std::unique_ptr<Database> database_;
  std::unique_ptr<Spool> spool_;
};

}  // namespace

TEST_CASE("an empty spool has nothing to read, nothing durable and no end") {
  Run run;
  CHECK(run->empty());
  CHECK_FALSE(run->has_next());
  CHECK(run->next() == nullptr);
  CHECK(run->sync() == Lsn{});
  CHECK(run->end_lsn() == Lsn{});
}

TEST_CASE("a small backlog stays in memory and confirms nothing") {
  Run run;
  run.applying();
  run->append(whole("a", 100));
  run->append(whole("b", 200));
  CHECK(run->memory_bytes() > 0);
  CHECK(run->disk_bytes() == 0);
  CHECK(run->sync() == Lsn{});
  CHECK(run->end_lsn() == Lsn{200});
  CHECK(run.read() == Texts{"a", "b"});
}

TEST_CASE("over the memory limit the oldest go to disk, in order, and the newest stay") {
  Run run{{.memory_bytes_max = 2'000}};
  run.applying();
  run->append(whole(std::string(800, 'a'), 100));
  CHECK(run->disk_bytes() == 0);
  run->append(whole(std::string(800, 'b'), 200));
  run->append(whole(std::string(800, 'c'), 300));
  CHECK(run->memory_bytes() > 0);
  CHECK(run->memory_bytes() <= 2'000);
  CHECK(run->sync() == Lsn{100});
  CHECK(run.crashed().read() == Texts{std::string(800, 'a')});
  CHECK(run.read() == Texts{std::string(800, 'a'), std::string(800, 'b'), std::string(800, 'c')});
}

TEST_CASE("blocks that were read but not released go to disk with the rest: there is no gap before them") {
  Run run{{.memory_bytes_max = 2'000}};
  run.applying();
  run->append(whole("read already", 100));
  CHECK(run.read() == Texts{"read already"});
  run->append(whole(std::string(2'000, 'b'), 200));
  CHECK(run->sync() == Lsn{200});
  CHECK(run.crashed().read() == Texts{"read already", std::string(2'000, 'b')});
}

TEST_CASE("what has been in memory for long goes to disk, with what was read before it, and nothing newer") {
  Run run;
  run.applying();
  run->append(whole("read already", 100));
  CHECK(run.read() == Texts{"read already"});
  run->append(whole("b", 200));
  const auto moment = std::chrono::steady_clock::now();
  while (std::chrono::steady_clock::now() == moment) continue;
  run->append(whole("newer", 300));
  run->write_appended_until(moment);
  CHECK(run->sync() == Lsn{200});
  CHECK(run->memory_bytes() > 0);
  CHECK(run.read() == Texts{"b", "newer"});
  CHECK(run.crashed().read() == Texts{"read already", "b"});
}

TEST_CASE("while nobody applies every block goes to disk at once") {
  Run run;
  run->append(whole("a", 100));
  CHECK(run->memory_bytes() == 0);
  CHECK(run->disk_bytes() > 0);
  CHECK(run->sync() == Lsn{100});
}

TEST_CASE("when the apply stops, what is in memory goes to disk") {
  Run run;
  run.applying();
  run->append(whole("a", 100));
  CHECK(run->sync() == Lsn{});
  run->set_disk_only(true);
  CHECK(run->memory_bytes() == 0);
  CHECK(run->sync() == Lsn{100});
  CHECK(run.crashed().read() == Texts{"a"});
}

TEST_CASE("behind an unread backlog on disk new blocks stay in memory") {
  Run run;
  run->append(whole("a", 100));
  run.applying();
  run->append(whole("b", 200));
  CHECK(run->memory_bytes() > 0);
  CHECK(run.read() == Texts{"a", "b"});
  CHECK(run->sync() == Lsn{100});
  CHECK(run.read_again() == Texts{"a", "b"});
  run->set_disk_only(true);
  CHECK(run->sync() == Lsn{200});
  CHECK(run.crashed().read() == Texts{"a", "b"});
}

TEST_CASE("the reader is far where nobody reads, and behind many blocks") {
  Run run;
  CHECK(run->reader_is_far());
  run.applying();
  std::uint64_t end = 100;
  for (; !run->reader_is_far(); ++end) run->append(whole("a", end));
  CHECK(end > 150);
  CHECK(run->next() != nullptr);
  CHECK_FALSE(run->reader_is_far());
}

TEST_CASE("sync answers with the last commit on disk, not with a transaction that is still open there") {
  Run run;
  run->append(whole_then_piece("a", 100, "begun", 900));
  run->append(piece("more", 900));
  CHECK(run->sync() == Lsn{100});
  run->append(whole("rest", 910));
  CHECK(run->sync() == Lsn{910});
}

TEST_CASE("each block that arrives is announced once") {
  Run run;
  int announced = 0;
  run->on_append([&] { ++announced; });
  run->append(whole("a", 100));
  run->append(whole("b", 200));
  CHECK(announced == 2);
}

TEST_CASE("a rewound spool is read again from the oldest block that was not released") {
  for (const bool in_memory : {true, false}) {
    CAPTURE(in_memory);
    Run run;
    run->set_disk_only(!in_memory);
    run->append(whole("a", 100));
    run->append(whole("b", 200));
    run->append(whole("c", 300));
    CHECK(run.read() == Texts{"a", "b", "c"});
    CHECK(run.read_again() == Texts{"a", "b", "c"});
    run->release(Lsn{199});
    CHECK(run.read_again() == Texts{"b", "c"});
    run->release(Lsn{200});
    CHECK(run.read_again() == Texts{"c"});
    run->release(Lsn{1'000});
    CHECK(run->empty());
    CHECK(run->memory_bytes() == 0);
    CHECK(run->disk_bytes() == 0);
    CHECK(run->end_lsn() == Lsn{300});
    CHECK(run.crashed().read().empty());
  }
}

TEST_CASE("a block that was not read yet is not released, even if the target is said to be past it") {
  Run run;
  run->append(whole("a", 100));
  run->append(whole("b", 200));
  CHECK(run->next() != nullptr);
  run->release(Lsn{1'000});
  CHECK(run.read() == Texts{"b"});
}

TEST_CASE("reading goes on where it was after a release") {
  Run run;
  run->append(whole("a", 100));
  run->append(whole("b", 200));
  run->append(whole("c", 300));
  CHECK(run->next() != nullptr);
  CHECK(run->next() != nullptr);
  run->release(Lsn{100});
  CHECK(run.read() == Texts{"c"});
}

TEST_CASE("the pieces of a large transaction are kept until all of it is durable") {
  Run run;
  run->append(whole_then_piece("a", 100, "first", 900));
  run->append(piece("second", 900));
  run->append(whole("third", 910));
  CHECK(run.read() == Texts{"a", "first", "second", "third"});
  run->release(Lsn{100});
  run->release(Lsn{900});
  CHECK(run.read_again() == Texts{"a", "first", "second", "third"});
  run->release(Lsn{910});
  CHECK(run->empty());
}

TEST_CASE("a restart keeps the complete transactions on disk and their end") {
  Run run;
  run->append(whole("a", 100));
  run->append(whole("b", 200));
  run.restart();
  CHECK(run->end_lsn() == Lsn{200});
  CHECK(run->disk_bytes() > 0);
  CHECK(run->sync() == Lsn{200});
  run->append(whole("c", 300));
  CHECK(run.read() == Texts{"a", "b", "c"});
  run.restart();
  CHECK(run.read() == Texts{"a", "b", "c"});
}

TEST_CASE("a restart drops the incomplete last transaction, however many blocks it fills") {
  Run run;
  run->append(whole_then_piece("a", 100, "begun", 900));
  run->append(piece("more", 900));
  run->append(piece("and more", 900));
  Run killed = run.crashed();
  CHECK(killed->end_lsn() == Lsn{100});
  CHECK(killed->sync() == Lsn{100});
  CHECK_FALSE(killed->take_broken_off());
  CHECK(killed.read() == Texts{"a"});
  run.restart();
  CHECK(run.read() == Texts{"a"});
  run->append(whole("sent again", 910));
  run.restart();
  CHECK(run.read() == Texts{"a", "sent again"});
}

TEST_CASE("a lost source connection cuts the unfinished transaction off and leaves the complete ones before it") {
  for (const bool in_memory : {true, false}) {
    CAPTURE(in_memory);
    Run run;
    run->set_disk_only(!in_memory);
    run->append(whole("a", 100));
    run->append(whole_then_piece("b", 200, "begun", 900));
    run->append(piece("more", 900));
    run->discard_incomplete();
    CHECK_FALSE(run->take_broken_off());
    CHECK(run->end_lsn() == Lsn{200});
    run->append(whole("sent again", 910));
    CHECK(run.read() == Texts{"a", "b", "sent again"});
  }
}

TEST_CASE("a spool that ends with a commit loses nothing to a lost source connection") {
  Run run;
  run.applying();
  run->append(whole("a", 100));
  const StreamId stream = run.stream({"x"});
  run.commit_stream(stream, 200);
  CHECK(run.read() == Texts{"a", "streamed"});
  run->discard_incomplete();
  CHECK_FALSE(run->take_broken_off());
  CHECK(run.read_again() == Texts{"a", "streamed"});
}

TEST_CASE("the reader is told once that what it read was broken off") {
  Run run;
  run.applying();
  run->append(whole_then_piece("a", 100, "begun", 900));
  CHECK(run.read() == Texts{"a", "begun"});
  run->discard_incomplete();
  CHECK(run->take_broken_off());
  CHECK_FALSE(run->take_broken_off());
  CHECK(run.read_again() == Texts{"a"});
}

TEST_CASE("the reader is told when only the beginning of the broken-off transaction was read") {
  Run run;
  run.applying();
  run->append(whole("a", 100));
  run->append(piece("begun", 900));
  run->append(piece("unread", 900));
  CHECK(run->next() != nullptr);
  CHECK(run->next() != nullptr);
  run->discard_incomplete();
  CHECK(run->take_broken_off());
  CHECK(run.read_again() == Texts{"a"});
}

TEST_CASE("rewinding answers the broken-off transaction") {
  Run run;
  run->append(piece("begun", 900));
  CHECK(run.read() == Texts{"begun"});
  run->discard_incomplete();
  run->rewind();
  CHECK_FALSE(run->take_broken_off());
  CHECK(run->empty());
}

TEST_CASE("transactions that were durable stay durable when the unfinished one behind them is cut off") {
  // The source was told that it may forget the transaction at 100.
  Run run;
  run->append(whole_then_piece("a", 100, "begun", 900));
  REQUIRE(run->sync() == Lsn{100});
  run.applying();
  SUBCASE("before it is read") {}
  SUBCASE("after it is read") {
    CHECK(run.read() == Texts{"a", "begun"});
  }
  run->discard_incomplete();
  CHECK(run->sync() == Lsn{100});
  CHECK(run.crashed().read() == Texts{"a"});
}

TEST_CASE("transactions that went to disk over the memory limit stay there when their block is cut") {
  Run run{{.memory_bytes_max = 2'000}};
  run.applying();
  run->append(whole_then_piece("a", 100, std::string(2'000, 'x'), 900));
  REQUIRE(run->sync() == Lsn{100});
  run->discard_incomplete();
  CHECK(run->sync() == Lsn{100});
  CHECK(run.crashed().read() == Texts{"a"});
}

TEST_CASE("a streamed transaction is kept in chunks and read back in order") {
  Run run;
  const std::string large(std::size_t{100} << 10U, 'x');
  const Texts sent{large + "1", large + "2", large + "3", large + "4", "last"};
  const StreamId stream = run.stream(sent);
  const std::uint64_t chunks = run->close_stream(stream);
  CHECK(chunks == 2);
  CHECK(run.stream_texts(stream, chunks) == sent);
  CHECK_FALSE(run.has_chunk(stream, chunks));
}

TEST_CASE("streams that arrive interleaved do not mix") {
  Run run;
  const StreamId one = run.stream({"1a"});
  const StreamId two = run.stream({"2a"});
  run->append_stream(one, as_bytes("1b"));
  run->append_stream(two, as_bytes("2b"));
  CHECK(run.stream_texts(two, run->close_stream(two)) == Texts{"2a", "2b"});
  CHECK(run.stream_texts(one, run->close_stream(one)) == Texts{"1a", "1b"});
}

TEST_CASE("a stream without changes has no chunk") {
  Run run;
  CHECK(run->close_stream(run->open_stream(Xid{700})) == 0);
}

TEST_CASE("a dropped stream is gone, its neighbours stay") {
  Run run;
  const std::string large(std::size_t{300} << 10U, 'x');
  const StreamId kept = run.stream({large});
  const StreamId dropped = run.stream({large, large});
  const StreamId also_kept = run.stream({large});
  run->drop_stream(dropped);
  CHECK_FALSE(run.has_chunk(dropped, 0));
  CHECK_FALSE(run.has_chunk(dropped, 1));
  CHECK(run.has_chunk(kept, 0));
  CHECK(run.has_chunk(also_kept, 0));
  CHECK_THROWS_AS(run->append_stream(dropped, as_bytes("x")), Error);
}

TEST_CASE("a stream that the spool does not know is refused") {
  Run run;
  const StreamId closed = run.stream({"x"});
  CHECK(run->close_stream(closed) == 1);
  CHECK_THROWS_AS(run->append_stream(closed, as_bytes("y")), Error);
  CHECK_THROWS_AS(static_cast<void>(run->close_stream(closed)), Error);
  CHECK_THROWS_AS(run->drop_stream(StreamId{99}), Error);
}

TEST_CASE("a lost source connection wipes unfinished streams, not those whose commit arrived") {
  Run run;
  const std::string large(std::size_t{300} << 10U, 'x');
  const StreamId committed = run.stream({large, "end"});
  const StreamId unfinished = run.stream({large, "end"});
  run.commit_stream(committed, 100);
  run->discard_incomplete();
  CHECK(run.stream_texts(committed, 2) == Texts{large, "end"});
  CHECK_FALSE(run.has_chunk(unfinished, 0));
  CHECK_THROWS_AS(run->append_stream(unfinished, as_bytes("x")), Error);
}

TEST_CASE("after a restart committed streams are there and unfinished ones are wiped") {
  const std::string large(std::size_t{300} << 10U, 'x');
  Run run;
  const StreamId unfinished = run.stream({large});
  const StreamId committed = run.stream({large, "end"});
  run.commit_stream(committed, 100);
  const auto expect = [&](Run& after) {
    CHECK(after->end_lsn() == Lsn{100});
    CHECK(after->sync() == Lsn{100});
    CHECK(after.stream_texts(committed, 2) == Texts{large, "end"});
    CHECK_FALSE(after.has_chunk(unfinished, 0));
    const auto block = after->next();
    REQUIRE(block != nullptr);
    CHECK(block->streamed.stream == committed);
    CHECK(block->streamed.chunks == 2);
    CHECK(block->streamed.commit_lsn == Lsn{99});
    CHECK(after->open_stream(Xid{700}) > committed);
  };
  Run killed = run.crashed();
  expect(killed);
  run.restart();
  expect(run);
}

TEST_CASE("a commit that goes to disk later takes the changes of its stream along") {
  Run run;
  run.applying();
  const StreamId stream = run.stream({"x", "y"});
  run.commit_stream(stream, 100);
  CHECK(run->sync() == Lsn{});
  run->set_disk_only(true);
  CHECK(run->sync() == Lsn{100});
  Run killed = run.crashed();
  CHECK(killed.read() == Texts{"streamed"});
  CHECK(killed.stream_texts(stream, 1) == Texts{"x", "y"});
}

TEST_CASE("a released streamed transaction gives its chunks back") {
  Run run;
  run->append(whole("a", 100));
  const StreamId stream = run.stream({"x"});
  run.commit_stream(stream, 200);
  CHECK(run.read() == Texts{"a", "streamed"});
  run->release(Lsn{100});
  CHECK(run.has_chunk(stream, 0));
  run->release(Lsn{200});
  CHECK_FALSE(run.has_chunk(stream, 0));
  CHECK(run->empty());
}

TEST_CASE("a cleared spool is empty, in memory and on disk, and can be used anew") {
  Run run{no_memory};
  run.applying();
  run->append(whole("a", 100));
  const StreamId committed = run.stream({"x"});
  run.commit_stream(committed, 200);
  const StreamId open = run.stream({std::string(std::size_t{300} << 10U, 'x')});
  run->append(piece("begun", 900));
  CHECK(run->next() != nullptr);
  run->clear(Lsn{400});
  CHECK(run->empty());
  CHECK_FALSE(run->has_next());
  CHECK(run->end_lsn() == Lsn{});
  CHECK(run->sync() == Lsn{});
  CHECK(run->memory_bytes() == 0);
  CHECK(run->disk_bytes() == 0);
  CHECK_FALSE(run.has_chunk(committed, 0));
  CHECK_FALSE(run.has_chunk(open, 0));
  CHECK(run.crashed()->empty());
  run->append(whole("b", 50));
  CHECK(run->end_lsn() == Lsn{50});
  CHECK(run.read() == Texts{"b"});
}

TEST_CASE("what the target must hold for the rest to follow without a gap is known after a crash") {
  SUBCASE("blocks on disk") {
    Run run{no_memory};
    run->append(whole("a", 100));
    run->append(piece("b", 300));
    run->append(whole("c", 310));
    run->append(whole("d", 400));
    CHECK(run.crashed()->begin_lsn() == Lsn{});
    CHECK(run.read().size() == 4);
    run->release(Lsn{100});
    CHECK(run.crashed()->begin_lsn() == Lsn{100});
    run->release(Lsn{310});
    CHECK(run->begin_lsn() == Lsn{310});
    CHECK(run.crashed()->begin_lsn() == Lsn{310});
    CHECK(run.crashed().read() == Texts{"d"});
  }
  SUBCASE("blocks that were never on disk, before one that is") {
    Run run;
    run.applying();
    run->append(whole("a", 100));
    CHECK(run.read() == Texts{"a"});
    run->release(Lsn{150});
    run->append(whole("b", 200));
    CHECK(run->begin_lsn() == Lsn{100});
    run->write_appended_until(Spool::Moment::max());
    CHECK(run.crashed()->begin_lsn() == Lsn{100});
    CHECK(run.crashed().read() == Texts{"b"});
  }
  SUBCASE("a spool that began anew") {
    Run run{no_memory};
    run->append(whole("a", 100));
    run->clear(Lsn{500});
    run->append(whole("b", 600));
    CHECK(run.crashed()->begin_lsn() == Lsn{500});
  }
}

TEST_CASE("blocks of another version's format are refused by the name of the directory, with the remedy") {
  Run run{no_memory};
  run->append(whole("a", 100));
  run.rewrite_in_another_format();
  CHECK_THROWS_WITH_AS(run.open_again(), doctest::Contains("Remedy: go on with the version of walferry that wrote it"),
                       Error);
}
