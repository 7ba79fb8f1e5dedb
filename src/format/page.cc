// SPDX-License-Identifier: Apache-2.0
#include "format/page.h"

#include "base/check.h"

namespace firn::format {
namespace {

uint32_t place_seed(const Uuid& uuid, PageNo page) {
  const le64 place(page);
  return crc32c(view_of(place), crc32c(uuid));
}

}  // namespace

std::string uuid_text(const Uuid& uuid) {
  std::string text;
  for (size_t i = 0; i < uuid.size(); ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) text.push_back('-');
    text += fmt::format("{:02x}", static_cast<unsigned>(uuid[i]));
  }
  return text;
}

uint32_t page_crc(const Uuid& uuid, PageNo page, View content) {
  return crc32c(content, place_seed(uuid, page));
}

uint32_t info_crc(const Uuid& uuid, PageNo page, View content) {
  return crc32c(content.subspan(offsetof(InfoPage, page)), place_seed(uuid, page));
}

namespace {

Result<void> check_entry(PageNo page, const PageInfo& info) {
  const auto kind = static_cast<uint8_t>(info.kind);
  if (kind > kPageKindMax) {
    return fail(Errc::too_new, "metadata page {}: its kind, {}, is unknown to this version", page,
                kind);
  }
  const auto level = static_cast<uint8_t>(info.level);
  const bool is_index = kind == static_cast<uint8_t>(PageKind::index);
  const bool is_root = kind == static_cast<uint8_t>(PageKind::pool_root);
  const bool is_free = kind == static_cast<uint8_t>(PageKind::free);
  if (level > kLevelMax || (level != 0) != is_index || is_root != (page == kRootPage) ||
      info.flags != 0 || info.reserved != 0 || (is_free && !all_zero(view_of(info)))) {
    return fail(Errc::corrupt, "metadata page {}: its entry is impossible (kind {}, level {})",
                page, kind, level);
  }
  return ok;
}

}  // namespace

Result<void> check_info_page(const Uuid& uuid, PageNo page, View content) {
  const le32 magic = load<le32>(content);
  if (magic != kInfoMagic) {
    return fail(Errc::corrupt, "metadata page {}: page-info magic is {:08x}", page, magic.get());
  }
  const le32 crc = load<le32>(content.subspan(offsetof(InfoPage, crc)));
  const uint32_t expected = info_crc(uuid, page, content);
  if (crc != expected) {
    return fail(Errc::corrupt, "metadata page {}: page-info crc {:08x}, expected {:08x}", page,
                crc.get(), expected);
  }
  const le64 place = load<le64>(content.subspan(offsetof(InfoPage, page)));
  if (place != page) {
    return fail(Errc::corrupt, "metadata page {}: it says that it is page {}", page, place.get());
  }
  return check_info_entries(page, content);
}

Result<void> check_info_entries(PageNo page, View content) {
  for (size_t i = 0; i < kGroupEntries; ++i) {
    const auto info =
        load<PageInfo>(content.subspan(offsetof(InfoPage, entries) + i * sizeof(PageInfo)));
    TRY(check_entry(page + 1 + i, info));
  }
  return ok;
}

namespace {
constexpr uint64_t kOwnBit = uint64_t{1} << 63;
}

uint64_t encode(IndexEntry entry) {
  CHECK(entry.page <= kPageNoMax);
  CHECK(entry.page != kNoPage || !entry.own);
  return entry.page | (entry.own ? kOwnBit : 0);
}

Result<IndexEntry> decode_index_entry(uint64_t raw) {
  const IndexEntry entry{raw & kPageNoMax, (raw & kOwnBit) != 0};
  if ((raw & ~kOwnBit & ~kPageNoMax) != 0 || (entry.own && entry.page == kNoPage) ||
      (entry.page != kNoPage && is_info_page(entry.page))) {
    return fail(Errc::corrupt, "index entry {:016x} is impossible", raw);
  }
  return entry;
}

}  // namespace firn::format
