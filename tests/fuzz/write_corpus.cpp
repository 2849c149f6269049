// Writes the seed corpora of the fuzz targets: one folder a target, one file an input.
//
//   walferry_write_corpus tests/fuzz/corpus
//
// To be run again, and its result committed, when a pgoutput sample is added.
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>

#include "engine/store/block.hpp"
#include "protocol/copy_format.hpp"
#include "tests/unit/pgoutput_samples.hpp"
#include "tests/unit/wire_bytes.hpp"

namespace walferry::test {
namespace {

namespace fs = std::filesystem;

void write(const fs::path& folder, std::string_view name, Bytes bytes) {
  fs::create_directories(folder);
  std::ofstream file;
  file.exceptions(std::ios::failbit | std::ios::badbit);
  file.open(folder / name, std::ios::binary | std::ios::trunc);
  file << as_text(bytes);
  file.close();
}

void write_pgoutput(const fs::path& corpus) {
  for (const PgoutputSample& sample : pgoutput_samples()) {
    write(corpus / (sample.context.in_stream ? "pgoutput_stream" : "pgoutput"), sample.name, wire(sample.notation));
  }
}

void write_replication(const fs::path& corpus) {
  const fs::path folder = corpus / "replication";
  write(folder, "keepalive", wire("'k' 000000000154caa0 000303bc95beef10 00"));
  write(folder, "keepalive_reply_requested", wire("'k' 000000000154caa0 000303bc95beef10 01"));
  for (const std::string_view name : {"begin", "relation", "insert_text", "commit"}) {
    auto frame = wire("'w' 0000000001547de8 0000000001547de8 000303bc95beef10");
    Writer(frame).bytes(wire(pgoutput_sample(name).notation));
    write(folder, "xlog_data_" + std::string(name), frame);
  }
}

void write_copy_binary(const fs::path& corpus) {
  using copy_format::Field;
  const fs::path folder = corpus / "copy_binary";
  const auto one = wire("00000001");
  const Field rows[][3] = {{Bytes(one), as_bytes("a"), std::nullopt}, {Bytes(one), as_bytes(""), as_bytes("x\ty")}};
  std::vector<std::byte> out;
  copy_format::append_binary_header(out);
  for (const auto& row : rows) copy_format::append_binary_tuple(row, out);
  copy_format::append_binary_trailer(out);
  write(folder, "two_rows", out);

  out.clear();
  copy_format::append_binary_header(out);
  copy_format::append_binary_trailer(out);
  write(folder, "no_rows", out);

  out.clear();
  copy_format::append_binary_header(out);
  copy_format::append_binary_tuple({}, out);
  copy_format::append_binary_trailer(out);
  write(folder, "row_without_columns", out);
}

// The first byte says how many arrive at a time.
void write_copy_out(const fs::path& corpus) {
  const fs::path folder = corpus / "copy_out";
  write(folder, "rows",
        wire("06 'H' 0000000b 00 0002 0000 0000 'd' 00000008 '1' 09 'a' 0a 'd' 00000009 '22' 09 'b' 0a"
             " 'c' 00000004 'C' 0000000b 'COPY 2' 00 'Z' 00000005 'T'"));
  write(folder, "error",
        wire("02 'H' 00000007 00 0000 'd' 00000005 'x' 'N' 00000005 00"
             " 'E' 0000001d 'SERROR' 00 'C57014' 00 'Mcanceled' 00 00 'Z' 00000005 'E'"));
}

void write_lsn(const fs::path& corpus) {
  write(corpus / "lsn", "first", as_bytes("0/1"));
  write(corpus / "lsn", "both_halves", as_bytes("16/B374D848"));
}

void write_binary_value(const fs::path& corpus) {
  const fs::path folder = corpus / "binary_value";
  write(folder, "timestamp", as_bytes("0044-03-15 12:00:00.25+00 BC"));
  write(folder, "date", as_bytes("2024-02-29"));
  write(folder, "numeric", as_bytes("-12345678.90120034"));
  write(folder, "float", as_bytes("1.7976931348623157e+308"));
  write(folder, "bytea", as_bytes("\\x00ff7f"));
  write(folder, "uuid", as_bytes("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"));
}

void write_block(const fs::path& corpus) {
  store::Block block;
  for (const std::string_view name : {"begin", "relation", "insert_text", "commit"})
    store::append_message(block.messages, wire(pgoutput_sample(name).notation));
  block.complete_bytes = block.messages.size();
  block.end_lsn = Lsn{0x16B374D848};
  store::append_message(block.messages, wire(pgoutput_sample("begin").notation));
  block.open_final_lsn = Lsn{0x1700000000};
  write(corpus / "block", "ends_open", as_bytes(store::encode(block)));

  store::Block streamed;
  streamed.kind = store::Block::Kind::StreamedCommit;
  streamed.end_lsn = Lsn{0x2000};
  streamed.streamed = {.stream = store::StreamId{7},
                       .xid = Xid{739},
                       .commit_lsn = Lsn{0x1FF0},
                       .end_lsn = Lsn{0x2000},
                       .commit_time = PgTime{-5},
                       .chunks = 3,
                       .aborted = {Xid{740}, Xid{0xFFFFFFFF}}};
  write(corpus / "block", "streamed_commit", as_bytes(store::encode(streamed)));
}

void write_sql_script(const fs::path& corpus) {
  write(corpus / "sql_script", "entry", as_bytes(R"(SET client_encoding = 'UTF8';

--
-- TOC entry 215 (class 1259 OID 16387)
-- Dependencies: 5 6
-- Name: t; Type: TABLE; Schema: public; Owner: postgres
--

SET default_tablespace = '';

CREATE TABLE public."T;" (id integer DEFAULT 1 NOT NULL) WITH (fillfactor='70');
)"));
  write(corpus / "sql_script", "quotes",
        as_bytes(R"(SELECT 'it''s', E'a\'b', $x$ ; $$ $x$, U&"d\0061t" /* a /* b */ */ -- c
; CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; END;)"));
  write(corpus / "sql_script", "counters", as_bytes("ALTER TABLE t ALTER COLUMN a SET (n_distinct=5, pg_attver='3');"));
}

void write_ddl_message(const fs::path& corpus) {
  constexpr std::string_view alter =
      R"j({"secret": "s", "event": "ddl_command_end", "tag": "ALTER TABLE", "role": "r", "at": 1.5, "context": "",)j"
      R"j( "query": "SELECT 1; ALTER TABLE t ADD r float8 DEFAULT random()", "settings": {"search_path": "app"},)j"
      R"j( "objects": [{"type": "table", "identity": "app.t", "schema": "app", "name": "t", "kind": "r",)j"
      R"j( "persistence": "p", "published": true, "missing": {"r": "1", "n": null}}]})j";
  constexpr std::string_view rewrite =
      R"j({"secret": "s", "event": "table_rewrite", "objects": [{"type": "table", "identity": "app.\"T\"", "reason": 2}]})j";
  constexpr std::string_view drop =
      R"j({"secret": "s", "event": "sql_drop", "objects": [{"type": "index", "identity": "app.i"}]})j";
  constexpr std::string_view in_function =
      R"j({"secret": "s", "event": "ddl_command_end", "tag": "CREATE INDEX", "query": "SELECT f()", "objects":)j"
      R"j( [{"type": "index", "identity": "app.i"}], "context": "PL/pgSQL function walferry.note() line 15 at GET)j"
      R"j( DIAGNOSTICS\nSQL statement \"CREATE INDEX CONCURRENTLY i ON t (a)\"\nPL/pgSQL function f() line 3"})j";
  const fs::path folder = corpus / "ddl_message";
  write(folder, "alter_table", as_bytes(alter));
  write(folder, "in_function", as_bytes(in_function));
  std::string several{rewrite};
  for (const std::string_view next : {drop, alter}) several += '\0' + std::string{next};
  write(folder, "several", as_bytes(several));
}

}  // namespace
}  // namespace walferry::test

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fputs("usage: walferry_write_corpus <corpus folder>\n", stderr);
    return 1;
  }
  const std::filesystem::path corpus(argv[1]);
  walferry::test::write_pgoutput(corpus);
  walferry::test::write_replication(corpus);
  walferry::test::write_copy_binary(corpus);
  walferry::test::write_copy_out(corpus);
  walferry::test::write_lsn(corpus);
  walferry::test::write_binary_value(corpus);
  walferry::test::write_block(corpus);
  walferry::test::write_sql_script(corpus);
  walferry::test::write_ddl_message(corpus);
  return 0;
}
