// SPDX-License-Identifier: Apache-2.0
// Any bytes as a page-info page (first byte even) or as index entries (odd), as they are and under
// a right checksum.
#include <algorithm>
#include <array>
#include <cstdint>

#include "base/check.h"
#include "format/inspect.h"
#include "format/page.h"

namespace {

using namespace firn;
using namespace firn::format;

constexpr PageNo kPage = 256;

Uuid pool_uuid() {
  Uuid uuid;
  for (size_t i = 0; i < uuid.size(); ++i) uuid[i] = static_cast<std::byte>(0x10 + i);
  return uuid;
}
const Uuid kUuid = pool_uuid();

void believe(View content) {
  const auto info = load<InfoPage>(content);
  CHECK(info.magic == kInfoMagic && info.page == kPage);
  for (const PageInfo& entry : info.entries) {
    const auto kind = static_cast<uint8_t>(entry.kind);
    CHECK(kind <= kPageKindMax && static_cast<PageKind>(kind) != PageKind::pool_root);
    CHECK(static_cast<PageKind>(kind) != PageKind::free || all_zero(view_of(entry)));
    const bool is_index = static_cast<PageKind>(kind) == PageKind::index;
    CHECK(is_index == (entry.level != std::byte{}) && static_cast<int>(entry.level) <= kLevelMax);
  }
}

void info_page(Bytes content) {
  if (check_info_page(kUuid, kPage, content)) believe(content);
  const le32 magic(kInfoMagic);
  const le64 place(kPage);
  std::ranges::copy(view_of(magic), content.begin());
  std::ranges::copy(view_of(place), content.begin() + offsetof(InfoPage, page));
  const le32 crc(info_crc(kUuid, kPage, content));
  std::ranges::copy(view_of(crc), content.begin() + offsetof(InfoPage, crc));
  if (check_info_page(kUuid, kPage, content)) believe(content);
  CHECK(!check_info_page(kUuid, kPage + kGroupPages, content), "misplaced, and not noticed");
  CHECK(!inspect(Artifact::info_page, content, {.uuid = kUuid, .place = kPage}).empty());
}

void index_page(View content) {
  for (size_t i = 0; i < kFanout; ++i) {
    const uint64_t raw = load<le64>(content.subspan(i * 8));
    const Result<IndexEntry> entry = decode_index_entry(raw);
    if (!entry) continue;
    CHECK(encode(*entry) == raw && entry->page <= kPageNoMax);
    CHECK(entry->page == kNoPage || !is_info_page(entry->page));
    CHECK(entry->page != kNoPage || !entry->own);
  }
  CHECK(!inspect(Artifact::index_page, content).empty());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const View input = std::as_bytes(std::span(data, size)).subspan(1);
  std::array<std::byte, kPageBytes> content{};
  std::ranges::copy(input.first(std::min(input.size(), content.size())), content.begin());
  if (data[0] % 2 == 0) {
    info_page(content);
  } else {
    index_page(content);
  }
  return 0;
}
