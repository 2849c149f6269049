// What one message costs in user space: decoding of frames and payloads, walking a tuple, framing for COPY and blocks.
//
// Rows are those of the drain benchmark (bigint, int, 50 bytes of text, a timestamp); no I/O, one core.
#include <benchmark/benchmark.h>

#include <string>
#include <vector>

#include "engine/store/block.hpp"
#include "protocol/copy_format.hpp"
#include "protocol/pgoutput.hpp"
#include "protocol/replication.hpp"
#include "tests/unit/wire_bytes.hpp"

namespace walferry {
namespace {

using test::wire;

const std::string text_row =
    " 0004 't' 00000006 '123456' 't' 00000006 '123456'"
    " 't' 00000032 'e10adc3949ba59abbe56e057f20f883eabcdefghijklmnopqr'"
    " 't' 0000001d '2026-01-02 03:04:05.678901+00'";
const std::string binary_row =
    " 0004 'b' 00000008 000000000001e240 'b' 00000004 0001e240"
    " 'b' 00000032 'e10adc3949ba59abbe56e057f20f883eabcdefghijklmnopqr'"
    " 'b' 00000008 0002e9a1c3d4e5f6";

std::vector<std::byte> insert(const std::string& row) {
  return wire("'I' 0000400a 'N'" + row);
}
std::vector<std::byte> update(const std::string& row) {
  return wire("'U' 0000400a 'N'" + row);
}
std::vector<std::byte> delete_of_key() {
  return wire("'D' 0000400a 'K' 0004 't' 00000006 '123456' 'n' 'n' 'n'");
}
std::vector<std::byte> framed(const std::vector<std::byte>& payload) {
  std::vector<std::byte> frame = wire("'w' 0000000012345678 0000000012345678 0002e9a1c3d4e5f6");
  frame.insert(frame.end(), payload.begin(), payload.end());
  return frame;
}

void decode_frame(benchmark::State& state) {
  const std::vector<std::byte> frame = framed(insert(text_row));
  for (auto unused : state) benchmark::DoNotOptimize(replication::decode(frame));
}

void decode_payload(benchmark::State& state, const std::vector<std::byte>& payload) {
  for (auto unused : state) benchmark::DoNotOptimize(pgoutput::decode(payload, {}));
}

// Decoded and every field looked at, as the apply does.
void walk_insert(benchmark::State& state, const std::vector<std::byte>& payload) {
  for (auto unused : state) {
    const pgoutput::Message message = pgoutput::decode(payload, {});
    std::size_t bytes = 0;
    for (const pgoutput::FieldView field : std::get<pgoutput::InsertView>(message).row) bytes += field.value.size();
    benchmark::DoNotOptimize(bytes);
  }
}

std::vector<copy_format::Field> fields_of(const std::vector<std::byte>& payload) {
  const pgoutput::Message message = pgoutput::decode(payload, {});
  std::vector<copy_format::Field> fields;
  for (const pgoutput::FieldView field : std::get<pgoutput::InsertView>(message).row) fields.emplace_back(field.value);
  return fields;
}

constexpr std::size_t buffer_bytes = std::size_t{256} << 10U;

void frame_for_copy(benchmark::State& state, const std::vector<std::byte>& payload,
                    void (*append)(std::span<const copy_format::Field>, std::vector<std::byte>&)) {
  const std::vector<copy_format::Field> fields = fields_of(payload);
  std::vector<std::byte> out;
  for (auto unused : state) {
    if (out.size() > buffer_bytes) out.clear();
    append(fields, out);
  }
}

void append_to_block(benchmark::State& state) {
  const std::vector<std::byte> payload = insert(text_row);
  std::vector<std::byte> messages;
  for (auto unused : state) {
    if (messages.size() > buffer_bytes) messages.clear();
    store::append_message(messages, payload);
  }
}

void take_from_block(benchmark::State& state) {
  const std::vector<std::byte> payload = insert(text_row);
  std::vector<std::byte> messages;
  while (messages.size() < buffer_bytes) store::append_message(messages, payload);
  Bytes rest;
  for (auto unused : state) {
    if (rest.empty()) rest = messages;
    benchmark::DoNotOptimize(store::take_message(rest));
  }
}

BENCHMARK(decode_frame);
BENCHMARK_CAPTURE(decode_payload, insert_text, insert(text_row));
BENCHMARK_CAPTURE(decode_payload, insert_binary, insert(binary_row));
BENCHMARK_CAPTURE(decode_payload, update_text, update(text_row));
BENCHMARK_CAPTURE(decode_payload, delete_text, delete_of_key());
BENCHMARK_CAPTURE(walk_insert, text, insert(text_row));
BENCHMARK_CAPTURE(walk_insert, binary, insert(binary_row));
BENCHMARK_CAPTURE(frame_for_copy, text, insert(text_row), copy_format::append_text_row);
BENCHMARK_CAPTURE(frame_for_copy, binary, insert(binary_row), copy_format::append_binary_tuple);
BENCHMARK(append_to_block);
BENCHMARK(take_from_block);

}  // namespace
}  // namespace walferry
