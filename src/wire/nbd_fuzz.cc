// SPDX-License-Identifier: Apache-2.0
// Any bytes as each of NBD's structures; the first byte says which. What is accepted obeys N1 and
// N3.
#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

#include "base/check.h"
#include "wire/nbd.h"

namespace {

using namespace firn::wire::nbd;
using firn::View;

bool same(View a, View b) { return std::equal(a.begin(), a.end(), b.begin(), b.end()); }

// A string that was accepted lies inside the input and obeys the limits.
void believe(std::string_view text, View input) {
  CHECK(text.size() <= kStringMax && text.find('\0') == std::string_view::npos);
  if (text.empty()) return;
  const View bytes = std::as_bytes(std::span(text));
  CHECK(bytes.data() >= input.data() && bytes.data() + bytes.size() <= input.data() + input.size());
}

void options(View input) {
  const auto header = decode_option_header(input);
  if (header) CHECK(same(encode(*header), input), "N3");
  const auto reply = decode_option_reply_header(input);
  if (reply) CHECK(same(encode(*reply), input), "N3");
  const auto flags = decode_client_flags(input);
  if (flags) CHECK((*flags & ~uint32_t{kFixedNewstyle | kNoZeroes}) == 0);
  (void)decode_greeting(input).has_value();
}

void info_request(View input) {
  const auto request = decode_info_request(input);
  if (!request) return;
  believe(request->name, input);
  const std::vector<std::byte> bytes = encode(*request);
  const auto again = decode_info_request(bytes);
  CHECK(again && again->name == request->name && again->wants_name == request->wants_name &&
            again->wants_description == request->wants_description &&
            again->wants_block_size == request->wants_block_size,
        "N3");
}

void meta_queries(View input) {
  const auto found = decode_meta_queries(input);
  if (!found) return;
  believe(found->name, input);
  CHECK(found->queries.size() <= kQueriesMax);
  for (const std::string_view query : found->queries) believe(query, input);
  CHECK(same(encode(*found), input), "N3");
}

void requests(View input, Form form) {
  const auto request = decode_request(input, form);
  if (!request) return;
  std::array<std::byte, kExtendedRequestBytes> bytes{};
  const size_t count = encode(*request, form, bytes);
  CHECK(same(View(bytes).first(count), input), "N3");
  CHECK((allowed_flags(request->command, form) & kFlagFua) != 0);
  (void)name_of(request->command);
}

void replies(View input) {
  for (const Form form : {Form::structured, Form::extended}) {
    const auto chunk = decode_reply_chunk(input, form);
    if (!chunk) continue;
    std::array<std::byte, kExtendedChunkBytes> bytes{};
    CHECK(same(View(bytes).first(encode(*chunk, form, bytes)), input), "N3");
  }
  const auto simple = decode_simple_reply(input);
  if (simple) CHECK(same(firn::view_of(*simple), input), "N3");
  for (const Chunk type : {Chunk::error, Chunk::error_offset}) {
    const auto error = decode_error_chunk(input, type);
    if (error) believe(error->text, input);
  }
  for (const Chunk type : {Chunk::block_status, Chunk::block_status_ext}) {
    const auto status = decode_status_chunk(input, type);
    if (!status) continue;
    CHECK(!status->runs.empty() && status->runs.size() * 8 <= input.size());
    for (const auto& run : status->runs) CHECK(run.length > 0);
  }
}

void texts(View input) {
  const auto entry = decode_server_entry(input);
  if (entry) CHECK(same(encode(*entry), input), "N3");
  const auto context = decode_meta_context_entry(input);
  if (context) CHECK(same(encode(*context), input), "N3");
  const auto text = decode_info_text(input);
  if (text) CHECK(same(encode(*text), input), "N3");
  (void)decode_info_export(input).has_value();
  (void)decode_info_block_size(input).has_value();
}

void filter(View input) {
  const auto found = decode_status_filter(input);
  if (!found) return;
  CHECK(found->count > 0 && 8 + found->count * 4 == input.size());
  for (size_t i = 0; i < found->count; ++i) (void)filter_id(input, i);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const View input = std::as_bytes(std::span(data + 1, size - 1));
  switch (data[0] % 8) {
    case 0:
      options(input);
      break;
    case 1:
      info_request(input);
      break;
    case 2:
      meta_queries(input);
      break;
    case 3:
      requests(input, Form::simple);
      break;
    case 4:
      requests(input, Form::extended);
      break;
    case 5:
      replies(input);
      break;
    case 6:
      texts(input);
      break;
    default:
      filter(input);
      break;
  }
  return 0;
}
