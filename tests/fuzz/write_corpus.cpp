// Writes the seed corpora of the fuzz targets: one folder a target, one file an input.
//
//   walferry_write_corpus tests/fuzz/corpus
//
// To be run again, and its result committed, when a pgoutput sample is added.
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>

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
  return 0;
}
