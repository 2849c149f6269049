#include "tests/unit/pgoutput_samples.hpp"

#include <array>
#include <stdexcept>
#include <string>

namespace walferry::test {
namespace {

constexpr pgoutput::DecodeContext plain{};
constexpr pgoutput::DecodeContext in_stream{.in_stream = true, .abort_has_lsn = false};
constexpr pgoutput::DecodeContext parallel{.in_stream = false, .abort_has_lsn = true};

constexpr std::array samples{
    PgoutputSample{"begin", plain, "'B' 0000000001548090 000303bc95beef10 000002dd"},
    PgoutputSample{"commit", plain, "'C' 00 0000000001548090 00000000015480c0 000303bc95beef10"},
    PgoutputSample{"origin", plain, "'O' 00000016b374d848 'other' 00"},
    PgoutputSample{"type", plain, "'Y' 00004002 'app' 00 'mood' 00"},
    PgoutputSample{"relation", plain,
                   "'R' 0000400a 'public' 00 't' 00 'd' 0003"
                   " 01 'id' 00 00000017 ffffffff"
                   " 00 'body' 00 00000019 ffffffff"
                   " 00 'm' 00 00004002 ffffffff"},
    PgoutputSample{
        "relation_identity_full", plain,
        "'R' 00004011 'public' 00 'f' 00 'f' 0002 01 'id' 00 00000017 ffffffff 01 'big' 00 00000019 ffffffff"},
    PgoutputSample{"relation_without_columns", plain, "'R' 00004016 'public' 00 'z' 00 'd' 0000"},
    PgoutputSample{"relation_made_catalog_schema", plain,
                   "'R' 00004016 00 'c' 00 'i' 0001 00 'amount' 00 000006a4 00080006"},
    PgoutputSample{"insert_text", plain,
                   "'I' 0000400a 'N' 0003 't' 00000001 '1' 't' 00000006 68c3a96c6c6f 't' 00000002 'ok'"},
    PgoutputSample{"insert_binary", plain,
                   "'I' 0000400a 'N' 0003 'b' 00000004 00000001 'b' 00000006 68c3a96c6c6f 'b' 00000002 'ok'"},
    PgoutputSample{"insert_nulls", plain, "'I' 0000400a 'N' 0003 't' 00000001 '2' 'n' 'n'"},
    PgoutputSample{"insert_without_columns", plain, "'I' 00004016 'N' 0000"},
    PgoutputSample{"insert_made_empty_text", plain, "'I' 0000400a 'N' 0001 't' 00000000"},
    PgoutputSample{"update_same_key", plain,
                   "'U' 0000400a 'N' 0003 't' 00000001 '1' 't' 00000001 'x' 't' 00000002 'ok'"},
    PgoutputSample{"update_new_key", plain,
                   "'U' 0000400a 'K' 0003 't' 00000001 '1' 'n' 'n'"
                   " 'N' 0003 't' 00000001 '3' 't' 00000001 'x' 't' 00000002 'ok'"},
    PgoutputSample{"update_made_full_with_unchanged_toast", plain,
                   "'U' 00004011 'O' 0002 't' 00000001 '1' 't' 00000004 'aaaa' 'N' 0002 't' 00000001 '2' 'u'"},
    PgoutputSample{"delete_by_key", plain, "'D' 0000400a 'K' 0003 't' 00000001 '3' 'n' 'n'"},
    PgoutputSample{"delete_made_full", plain, "'D' 00004011 'O' 0002 't' 00000001 '2' 't' 00000004 'aaaa'"},
    PgoutputSample{"truncate", plain, "'T' 00000002 03 0000400a 00004011"},
    PgoutputSample{"truncate_made_without_flags", plain, "'T' 00000001 00 0000400a"},
    PgoutputSample{"message", plain, "'M' 01 000000000154caa0 'walferry' 00 00000008 'marker 1'"},
    PgoutputSample{"message_non_transactional", plain, "'M' 00 000000000154cb10 'walferry' 00 00000000"},
    PgoutputSample{"stream_start_first", plain, "'S' 000002e3 01"},
    PgoutputSample{"stream_start_again", plain, "'S' 000002e3 00"},
    PgoutputSample{"stream_stop", in_stream, "'E'"},
    PgoutputSample{"stream_commit", plain, "'c' 000002e3 00 00000000015f2ee8 00000000015f2f20 000303bc95bf094e"},
    PgoutputSample{"stream_abort", plain, "'A' 000002e3 000002e4"},
    PgoutputSample{"stream_abort_made_parallel", parallel, "'A' 000002e3 000002e4 000000000159ceb0 000303bc95bf094e"},
    PgoutputSample{"begin_prepare", plain,
                   "'b' 00000000015f32d0 00000000015f33c8 000303bc95bf0c32 000002e8 'gid 1' 00"},
    PgoutputSample{"prepare", plain, "'P' 00 00000000015f32d0 00000000015f33c8 000303bc95bf0c32 000002e8 'gid 1' 00"},
    PgoutputSample{"stream_prepare", plain,
                   "'p' 00 00000000016495e8 00000000016496e0 000303bc95bf1634 000002ea 'gid 3' 00"},
    PgoutputSample{"commit_prepared", plain,
                   "'K' 00 00000000015f33c8 00000000015f3400 000303bc95bf0c5d 000002e8 'gid 1' 00"},
    PgoutputSample{"rollback_prepared", plain,
                   "'r' 00 00000000015f3580 00000000015f35b8 000303bc95bf0cac 000303bc95bf0cc9 000002e9 'gid 2' 00"},
    PgoutputSample{"stream_type", in_stream, "'Y' 000002e3 00004002 'app' 00 'mood' 00"},
    PgoutputSample{"stream_relation", in_stream,
                   "'R' 000002e5 0000400a 'public' 00 't' 00 'd' 0003"
                   " 01 'id' 00 00000017 ffffffff"
                   " 00 'body' 00 00000019 ffffffff"
                   " 00 'm' 00 00004002 ffffffff"},
    PgoutputSample{"stream_insert", in_stream,
                   "'I' 000002e3 0000400a 'N' 0003 't' 00000002 '50' 't' 00000003 'big' 't' 00000003 'sad'"},
    PgoutputSample{"stream_made_update", in_stream,
                   "'U' 000002e3 0000400a 'K' 0003 't' 00000001 '1' 'n' 'n' 'N' 0003 't' 00000001 '3' 'u' 'n'"},
    PgoutputSample{"stream_made_delete", in_stream, "'D' 000002e3 0000400a 'K' 0003 't' 00000001 '3' 'n' 'n'"},
    PgoutputSample{"stream_made_truncate", in_stream, "'T' 000002e3 00000002 01 0000400a 00004011"},
    PgoutputSample{"stream_made_message", in_stream,
                   "'M' 000002e3 01 000000000154caa0 'walferry' 00 00000008 'marker 1'"},
    PgoutputSample{"stream_made_origin", in_stream, "'O' 0000000000000000 'other' 00"},
};

}  // namespace

std::span<const PgoutputSample> pgoutput_samples() {
  return samples;
}

const PgoutputSample& pgoutput_sample(std::string_view name) {
  for (const PgoutputSample& sample : samples) {
    if (sample.name == name) return sample;
  }
  throw std::out_of_range("no pgoutput sample " + std::string(name));
}

}  // namespace walferry::test
