// SPDX-License-Identifier: Apache-2.0
#include "wire/nbd.h"

#include <gtest/gtest.h>

#include <initializer_list>
#include <string>
#include <vector>

#include "base/prng.h"

namespace firn::wire::nbd {
namespace {

using Raw = std::vector<std::byte>;

Raw raw(std::initializer_list<int> bytes) {
  Raw out;
  for (const int byte : bytes) out.push_back(static_cast<std::byte>(byte));
  return out;
}
Raw raw(View bytes) { return {bytes.begin(), bytes.end()}; }

TEST(Nbd, greeting_literal) {
  const Raw expected = raw({'N', 'B', 'D', 'M', 'A', 'G', 'I', 'C',  //
                            'I', 'H', 'A', 'V', 'E', 'O', 'P', 'T', 0, 3});
  EXPECT_EQ(raw(view_of(Greeting{})), expected);
  EXPECT_EQ(*decode_greeting(expected), kFixedNewstyle | kNoZeroes);
  Raw wrong = expected;
  wrong[15] = std::byte{'U'};
  EXPECT_FALSE(decode_greeting(wrong));
  EXPECT_FALSE(decode_greeting(View(expected).first(17)));
}

TEST(Nbd, client_flags) {
  EXPECT_EQ(*decode_client_flags(raw({0, 0, 0, 3})), 3u);
  EXPECT_FALSE(decode_client_flags(raw({0, 0, 0, 4})));
  EXPECT_FALSE(decode_client_flags(raw({0x80, 0, 0, 1})));
  EXPECT_FALSE(decode_client_flags(raw({0, 0, 3})));
}

TEST(Nbd, option_header_literal) {
  const Raw bytes = raw({'I', 'H', 'A', 'V', 'E', 'O', 'P', 'T', 0, 0, 0, 7, 0, 0, 1, 2});
  const auto header = decode_option_header(bytes);
  ASSERT_TRUE(header);
  EXPECT_EQ(header->option, Option::go);
  EXPECT_EQ(header->length, 0x102u);
  EXPECT_EQ(raw(View(encode(*header))), bytes);
  Raw wrong = bytes;
  wrong[0] = std::byte{'X'};
  EXPECT_FALSE(decode_option_header(wrong));
  EXPECT_NE(std::string(text_of(decode_option_header(wrong).error())).find("0x5848415645"),
            std::string::npos);
}

TEST(Nbd, option_reply_literal) {
  const Raw bytes = raw({0,    3, 0xe8, 0x89, 4, 0x55, 0x65, 0xa9, 0, 0, 0, 3,  //
                         0x80, 0, 0,    1,    0, 0,    0,    0});
  const auto header = decode_option_reply_header(bytes);
  ASSERT_TRUE(header);
  EXPECT_EQ(header->option, Option::list);
  EXPECT_EQ(header->reply, OptionReply::error_unsupported);
  EXPECT_TRUE(is_error(header->reply));
  EXPECT_FALSE(is_error(OptionReply::meta_context));
  EXPECT_EQ(raw(View(encode(*header))), bytes);
}

TEST(Nbd, info_request_literal) {
  const Raw bytes = raw({0, 0, 0, 2, 'd', '1', 0, 3, 0, 3, 0, 1, 0, 99});
  const auto request = decode_info_request(bytes);
  ASSERT_TRUE(request);
  EXPECT_EQ(request->name, "d1");
  EXPECT_TRUE(request->wants_block_size);
  EXPECT_TRUE(request->wants_name);
  EXPECT_FALSE(request->wants_description);
}

TEST(Nbd, info_request_refuses_what_lies) {
  EXPECT_FALSE(decode_info_request({}));
  EXPECT_FALSE(decode_info_request(raw({0, 0, 0, 2, 'd'})));
  EXPECT_FALSE(decode_info_request(raw({0, 0, 0, 1, 'd'})));
  EXPECT_FALSE(decode_info_request(raw({0, 0, 0, 1, 'd', 0, 2, 0, 3})));
  EXPECT_FALSE(decode_info_request(raw({0, 0, 0, 1, 'd', 0, 0, 0})));
  EXPECT_FALSE(decode_info_request(raw({0xff, 0xff, 0xff, 0xff, 'd', 0, 0})));
  EXPECT_FALSE(decode_info_request(raw({0, 0, 0, 1, 0, 0, 0})));     // NUL.
  EXPECT_FALSE(decode_info_request(raw({0, 0, 0, 1, 0xff, 0, 0})));  // Not UTF-8.
  Raw longer = raw({0, 0, 0x10, 1});
  longer.resize(4 + 4097 + 2, std::byte{'a'});
  EXPECT_FALSE(decode_info_request(longer));
}

TEST(Nbd, strings_are_utf8) {
  const auto accepted = [](std::string_view text) {
    return decode_string(std::as_bytes(std::span(text)), "a test").has_value();
  };
  EXPECT_TRUE(accepted(""));
  EXPECT_TRUE(accepted("disk-1@Schnee"));
  EXPECT_TRUE(accepted("\xc3\xa4\xe2\x82\xac\xf0\x9f\x8f\x94"));
  EXPECT_FALSE(accepted("\xc0\xaf"));          // Overlong.
  EXPECT_FALSE(accepted("\xe0\x80\xaf"));      // Overlong.
  EXPECT_FALSE(accepted("\xf0\x80\x80\xaf"));  // Overlong.
  EXPECT_FALSE(accepted("\xed\xa0\x80"));      // A surrogate.
  EXPECT_FALSE(accepted("\xf4\x90\x80\x80"));  // Above U+10FFFF.
  EXPECT_FALSE(accepted("\xe2\x82"));          // Cut off.
  EXPECT_FALSE(accepted("\x80"));
}

TEST(Nbd, meta_queries_literal) {
  const Raw bytes = raw({0, 0, 0, 1, 'd', 0, 0, 0, 2, 0, 0, 0, 5, 'b', 'a', 's', 'e', ':',  //
                         0, 0, 0, 0});
  const auto found = decode_meta_queries(bytes);
  ASSERT_TRUE(found);
  EXPECT_EQ(found->name, "d");
  ASSERT_EQ(found->queries.size(), 2u);
  EXPECT_EQ(found->queries[0], "base:");
  EXPECT_EQ(found->queries[1], "");
  EXPECT_EQ(encode(*found), bytes);
}

TEST(Nbd, meta_queries_refuse_false_counts) {
  EXPECT_FALSE(decode_meta_queries(raw({0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff})));
  EXPECT_FALSE(decode_meta_queries(raw({0, 0, 0, 0, 0, 0, 4, 1})));
  EXPECT_FALSE(decode_meta_queries(raw({0, 0, 0, 0, 0, 0, 0, 1})));
  EXPECT_FALSE(decode_meta_queries(raw({0, 0, 0, 0, 0, 0, 0, 0, 7})));
  EXPECT_FALSE(decode_meta_queries(raw({0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 9, 'a'})));
}

TEST(Nbd, replies_to_options_literal) {
  EXPECT_EQ(encode(ServerEntry{"d1", "x"}), raw({0, 0, 0, 2, 'd', '1', 'x'}));
  EXPECT_EQ(encode(MetaContextEntry{7, "b:a"}), raw({0, 0, 0, 7, 'b', ':', 'a'}));
  InfoExport size;
  size.bytes = 0x100000000;
  size.flags = uint16_t{kHasFlags | kSendFlush};
  EXPECT_EQ(raw(view_of(size)), raw({0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 5}));
  EXPECT_EQ(decode_info_export(view_of(size))->bytes, 0x100000000u);
  InfoBlockSize block;
  block.minimum = 1;
  block.preferred = 4096;
  block.maximum = static_cast<uint32_t>(kPayloadAdvertised);
  EXPECT_EQ(raw(view_of(block)), raw({0, 3, 0, 0, 0, 1, 0, 0, 0x10, 0, 2, 0, 0, 0}));
  EXPECT_TRUE(decode_info_block_size(view_of(block)));
  block.minimum = 3;
  EXPECT_FALSE(decode_info_block_size(view_of(block)));
  EXPECT_EQ(encode(InfoText{Info::name, "n"}), raw({0, 1, 'n'}));
  EXPECT_FALSE(decode_info_text(raw({0, 0, 'n'})));
}

TEST(Nbd, compact_request_literal) {
  const Raw bytes = raw({0x25, 0x60, 0x95, 0x13, 0, 1, 0,    1, 1, 2, 3,    4, 5, 6, 7, 8,  //
                         0,    0,    0,    1,    0, 0, 0x10, 0, 0, 0, 0x20, 0});
  const auto request = decode_request(bytes, Form::structured);
  ASSERT_TRUE(request);
  EXPECT_EQ(request->command, Command::write);
  EXPECT_EQ(request->flags, kFlagFua);
  EXPECT_EQ(request->cookie, 0x0102030405060708u);
  EXPECT_EQ(request->offset, 0x100001000u);
  EXPECT_EQ(request->length, 0x2000u);
  EXPECT_TRUE(has_payload(*request, Form::structured));
  Raw again(kRequestBytes);
  EXPECT_EQ(encode(*request, Form::simple, again), kRequestBytes);
  EXPECT_EQ(again, bytes);
  EXPECT_FALSE(decode_request(bytes, Form::extended));
}

TEST(Nbd, extended_request_literal) {
  const Raw bytes = raw({0x21, 0xe4, 0x1c, 0x71, 0, 0x20, 0,    7, 0, 0, 0, 0, 0, 0, 0, 9,  //
                         0,    0,    0,    0,    0, 0,    0x10, 0, 0, 0, 1, 0, 0, 0, 0, 0});
  const auto request = decode_request(bytes, Form::extended);
  ASSERT_TRUE(request);
  EXPECT_EQ(request->command, Command::block_status);
  EXPECT_EQ(request->length, uint64_t{1} << 40);
  EXPECT_TRUE(has_payload(*request, Form::extended));
  Raw again(kExtendedRequestBytes);
  EXPECT_EQ(encode(*request, Form::extended, again), kExtendedRequestBytes);
  EXPECT_EQ(again, bytes);
  Raw wrong = bytes;
  wrong[3] = std::byte{0x72};
  EXPECT_FALSE(decode_request(wrong, Form::extended));
}

TEST(Nbd, flags_that_commands_may_carry) {
  EXPECT_EQ(allowed_flags(Command::read, Form::simple), kFlagFua);
  EXPECT_EQ(allowed_flags(Command::read, Form::structured), kFlagFua | kFlagDf);
  EXPECT_EQ(allowed_flags(Command::write, Form::structured), kFlagFua);
  EXPECT_EQ(allowed_flags(Command::write, Form::extended), kFlagFua | kFlagPayloadLen);
  EXPECT_EQ(allowed_flags(Command::write_zeroes, Form::extended),
            kFlagFua | kFlagNoHole | kFlagFastZero);
  EXPECT_EQ(allowed_flags(static_cast<Command>(77), Form::extended), kFlagFua);
  EXPECT_EQ(name_of(static_cast<Command>(77)), "unknown");
  EXPECT_EQ(name_of(Command::block_status), "block_status");
}

TEST(Nbd, reply_headers_literal) {
  SimpleReply simple;
  simple.error = static_cast<uint32_t>(Errno::no_space);
  simple.cookie = 2;
  EXPECT_EQ(raw(view_of(simple)),
            raw({0x67, 0x44, 0x66, 0x98, 0, 0, 0, 28, 0, 0, 0, 0, 0, 0, 0, 2}));
  const ReplyChunk chunk{kReplyDone, Chunk::error, 3, 0x1000, 6};
  Raw narrow(kStructuredChunkBytes);
  encode(chunk, Form::structured, narrow);
  EXPECT_EQ(narrow,
            raw({0x66, 0x8e, 0x33, 0xef, 0, 1, 0x80, 1, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 6}));
  Raw wide(kExtendedChunkBytes);
  encode(chunk, Form::extended, wide);
  EXPECT_EQ(wide, raw({0x6e, 0x8a, 0x27, 0x8c, 0, 1, 0x80, 1, 0, 0, 0, 0, 0, 0, 0, 3,  //
                       0,    0,    0,    0,    0, 0, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 6}));
  EXPECT_EQ(decode_reply_chunk(wide, Form::extended)->offset, 0x1000u);
  EXPECT_EQ(decode_reply_chunk(narrow, Form::structured)->type, Chunk::error);
  EXPECT_FALSE(decode_reply_chunk(narrow, Form::extended));
}

TEST(Nbd, error_chunk_literal) {
  const Raw bytes = raw({0, 0, 0, 5, 0, 2, 'n', 'o'});
  const auto plain = decode_error_chunk(bytes, Chunk::error);
  ASSERT_TRUE(plain);
  EXPECT_EQ(plain->error, Errno::io);
  EXPECT_EQ(plain->text, "no");
  const Raw placed = raw({0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9});
  const auto at = decode_error_chunk(placed, Chunk::error_offset);
  ASSERT_TRUE(at);
  EXPECT_EQ(at->offset, 9u);
  EXPECT_FALSE(decode_error_chunk(placed, Chunk::error));
  EXPECT_FALSE(decode_error_chunk(raw({0, 0, 0, 0, 0, 0}), Chunk::error));
  EXPECT_FALSE(decode_error_chunk(raw({0, 0, 0, 5, 0, 9, 'n'}), Chunk::error));
}

TEST(Nbd, status_chunks_literal) {
  const auto narrow = decode_status_chunk(
      raw({0, 0, 0, 1, 0, 0, 0x10, 0, 0, 0, 0, 3, 0, 0, 0x20, 0, 0, 0, 0, 0}), Chunk::block_status);
  ASSERT_TRUE(narrow);
  EXPECT_EQ(narrow->context, 1u);
  ASSERT_EQ(narrow->runs.size(), 2u);
  EXPECT_EQ(narrow->runs[0].length, 0x1000u);
  EXPECT_EQ(narrow->runs[0].flags, kStateHole | kStateZero);
  const Raw wide = raw({0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2});
  const auto found = decode_status_chunk(wide, Chunk::block_status_ext);
  ASSERT_TRUE(found);
  EXPECT_EQ(found->runs[0].length, uint64_t{1} << 40);
  Raw lie = wide;
  lie[7] = std::byte{2};
  EXPECT_FALSE(decode_status_chunk(lie, Chunk::block_status_ext));
  EXPECT_FALSE(decode_status_chunk(raw({0, 0, 0, 1}), Chunk::block_status));
  EXPECT_FALSE(decode_status_chunk(raw({0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0}), Chunk::block_status));
}

TEST(Nbd, status_filter_literal) {
  const Raw bytes = raw({0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 9});
  const auto filter = decode_status_filter(bytes);
  ASSERT_TRUE(filter);
  EXPECT_EQ(filter->length, uint64_t{2} << 32);
  EXPECT_EQ(filter->count, 2u);
  EXPECT_EQ(filter_id(bytes, 1), 9u);
  EXPECT_FALSE(decode_status_filter(View(bytes).first(8)));
  EXPECT_FALSE(decode_status_filter(View(bytes).first(13)));
}

TEST(Nbd, N3_requests_of_any_numbers_survive_the_wire) {
  Prng prng(7);
  for (int i = 0; i < 10000; ++i) {
    const Request request{static_cast<uint16_t>(prng.next()), static_cast<Command>(prng.below(9)),
                          prng.next(), prng.next(), prng.next()};
    std::array<std::byte, kExtendedRequestBytes> bytes{};
    encode(request, Form::extended, bytes);
    const auto again = decode_request(bytes, Form::extended);
    ASSERT_TRUE(again);
    EXPECT_EQ(again->flags, request.flags);
    EXPECT_EQ(again->command, request.command);
    EXPECT_EQ(again->cookie, request.cookie);
    EXPECT_EQ(again->offset, request.offset);
    EXPECT_EQ(again->length, request.length);
  }
}

}  // namespace
}  // namespace firn::wire::nbd
