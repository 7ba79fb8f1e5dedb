// SPDX-License-Identifier: Apache-2.0
#include "format/shadow.h"

#include <algorithm>

#include "base/check.h"

namespace firn::format {
namespace {
constexpr size_t kCovered = 12;
constexpr size_t kCoveredEnd = offsetof(ShadowHeader, carried_after);
}  // namespace

std::array<char, 40> shadow_boot(std::string_view boot) {
  std::array<char, 40> text{};
  std::copy_n(boot.begin(), std::min(boot.size(), text.size()), text.begin());
  return text;
}

std::array<std::byte, 512> encode(ShadowHeader header) {
  header.crc = crc32c(view_of(header).first(kCoveredEnd).subspan(kCovered));
  std::array<std::byte, 512> bytes;
  std::memcpy(bytes.data(), &header, sizeof header);
  CHECK(decode_shadow_header(bytes), "a shadow header that we could not read back");
  return bytes;
}

Result<ShadowHeader> decode_shadow_header(View bytes) {
  if (bytes.size() < sizeof(ShadowHeader)) {
    return fail(Errc::corrupt, "shadow: {} bytes where 512 were expected", bytes.size());
  }
  const auto header = load<ShadowHeader>(bytes);
  if (header.magic != kShadowMagic) return fail(Errc::not_found, "shadow: no magic");
  const uint32_t expected = crc32c(view_of(header).first(kCoveredEnd).subspan(kCovered));
  if (header.crc != expected) {
    return fail(Errc::corrupt, "shadow: crc {:08x}, expected {:08x}", header.crc.get(), expected);
  }
  if (header.version > kShadowVersion) {
    return fail(Errc::too_new, "shadow: version {}, this program knows {}", header.version.get(),
                kShadowVersion);
  }
  if (header.version == 0 || header.half_bytes < kPageBytes || header.half_bytes > kGiB ||
      !aligned(header.half_bytes, kPageBytes)) {
    return fail(Errc::corrupt, "shadow: version {} with halves of {} bytes cannot be",
                header.version.get(), header.half_bytes.get());
  }
  if (header.reserved0 != 0 || !all_zero(header.reserved) || !all_zero(header.reserved1)) {
    return fail(Errc::corrupt, "shadow: reserved bytes are not zero");
  }
  return header;
}

uint32_t span_crc(const Uuid& uuid, uint64_t id, uint64_t place, View records) {
  const std::array<le64, 2> where{le64(id), le64(place)};
  return crc32c(records, crc32c(view_of(where), crc32c(uuid)));
}

std::vector<std::byte> read_half(const Uuid& uuid, uint64_t id, View half) {
  std::vector<std::byte> records;
  for (size_t at = sizeof(ShadowHalf); at + sizeof(ShadowSpan) <= half.size();) {
    const auto span = load<ShadowSpan>(half.subspan(at));
    const size_t from = at + sizeof span;
    if (span.bytes == 0 || !aligned(span.bytes, 8) || span.bytes > half.size() - from) break;
    const View here = half.subspan(from, span.bytes);
    if (span.crc != span_crc(uuid, id, at, here)) break;
    records.insert(records.end(), here.begin(), here.end());
    at = from + span.bytes;
  }
  return records;
}

}  // namespace firn::format
