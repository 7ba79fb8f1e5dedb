// SPDX-License-Identifier: Apache-2.0
// Any bytes as key and value of every row of an archive's metadata. What is accepted is written
// back as the same row.
#include <cstdint>
#include <string>

#include "base/check.h"
#include "format/archive_rows.h"

namespace {

using namespace firn;
using namespace firn::format;

template <class Decode>
void round(std::string_view value, Decode&& decode) {
  const auto row = decode(value);
  if (!row) {
    CHECK(!text_of(row.error()).empty());
    return;
  }
  const auto again = decode(std::string_view(encode(*row)));
  CHECK(again && *again == *row);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string text(
      std::string_view(static_cast<const char*>(static_cast<const void*>(data)), size));
  const std::string_view rest = std::string_view(text).substr(1);
  round(rest, decode_archive_row);
  round(rest, decode_disk_row);
  round(rest, decode_snapshot_row);
  round(rest, decode_region_row);
  round(rest, decode_segment_row);
  static_cast<void>(decode_hint(rest).has_value());
  const std::string key = chunk_key(1 + static_cast<uint8_t>(text[0]));
  round(rest, [&](std::string_view value) { return decode_chunk_row(key, value); });
  const Result<RegionAddress> region = decode_region_key(text);
  if (region) CHECK(region_key(region->disk, region->region, region->seq) == text);
  const Result<uint64_t> chunk = decode_chunk_key(text);
  if (chunk) CHECK(chunk_key(*chunk) == text);
  const Result<UsageAddress> usage = decode_usage_key(text);
  if (usage) CHECK(usage_key(usage->disk, usage->segment) == text);
  return 0;
}
