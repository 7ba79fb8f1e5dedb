// SPDX-License-Identifier: Apache-2.0
#include "format/page.h"

#include <gtest/gtest.h>

#include "format/format_test_util.h"

namespace firn::format {
namespace {

constexpr size_t entry_at(size_t entry) {
  return offsetof(InfoPage, entries) + entry * sizeof(PageInfo);
}

PageInfo random_entry(Prng& prng, PageNo page) {
  PageInfo info;
  if (page == kRootPage) {
    info.kind = static_cast<std::byte>(PageKind::pool_root);
    info.crc = static_cast<uint32_t>(prng.next());
    return info;
  }
  const auto kind = static_cast<PageKind>(prng.below(kPageKindMax + 1));
  if (kind == PageKind::free || kind == PageKind::pool_root) return info;
  info.kind = static_cast<std::byte>(kind);
  info.crc = static_cast<uint32_t>(prng.next());
  if (kind == PageKind::index) info.level = static_cast<std::byte>(1 + prng.below(kLevelMax));
  if (kind == PageKind::map || kind == PageKind::index) {
    info.family = static_cast<uint32_t>(prng.next());
  }
  return info;
}

void seal(const Uuid& uuid, PageNo page, Bytes content) {
  put(content, offsetof(InfoPage, crc), le32(info_crc(uuid, page, content)));
}

Blob random_info_page(Prng& prng, const Uuid& uuid, PageNo page) {
  InfoPage info;
  info.magic = kInfoMagic;
  info.page = page;
  for (size_t i = 0; i < kGroupEntries; ++i) info.entries[i] = random_entry(prng, page + 1 + i);
  Blob content = blob_of(view_of(info));
  seal(uuid, page, content);
  return content;
}

TEST(Page, numbers_of_a_group) {
  EXPECT_TRUE(is_info_page(0));
  EXPECT_FALSE(is_info_page(1));
  EXPECT_FALSE(is_info_page(255));
  EXPECT_TRUE(is_info_page(256));
  EXPECT_EQ(info_page_of(1), 0U);
  EXPECT_EQ(info_page_of(511), 256U);
  EXPECT_EQ(info_entry_of(1), 0U);
  EXPECT_EQ(info_entry_of(255), kGroupEntries - 1);
  EXPECT_EQ(info_entry_of(257), 0U);
}

TEST(Page, an_info_page_is_read_back_in_its_place_only) {
  Prng prng(1);
  for (int i = 0; i < 200; ++i) {
    const Uuid uuid = random_uuid(prng);
    const PageNo page = prng.below(1 << 20) * kGroupPages;
    const Blob content = random_info_page(prng, uuid, page);
    const auto checked = check_info_page(uuid, page, content);
    EXPECT_TRUE(checked) << text_of(checked.error());
    expect_error(check_info_page(uuid, page + kGroupPages, content), Errc::corrupt, "crc");
    expect_error(check_info_page(random_uuid(prng), page, content), Errc::corrupt, "crc");
  }
}

TEST(Page, every_flipped_bit_of_an_info_page_is_detected) {
  Prng prng(2);
  const Uuid uuid = random_uuid(prng);
  Blob content = random_info_page(prng, uuid, 256);
  for (size_t bit = 0; bit < content.size() * 8; ++bit) {
    flip(content, bit);
    EXPECT_FALSE(check_info_page(uuid, 256, content)) << "bit " << bit;
    flip(content, bit);
  }
}

TEST(Page, impossible_entries_are_refused_whatever_the_checksum_says) {
  struct Case {
    const char* what;
    PageNo group;
    size_t entry;
    PageInfo info;
    Errc code;
  };
  const auto kind = [](int number) { return static_cast<std::byte>(number); };
  for (const Case& each : {
           Case{"a kind of tomorrow", 0, 5, {.kind = kind(kPageKindMax + 1)}, Errc::too_new},
           Case{"the last kind", 0, 5, {.kind = kind(255)}, Errc::too_new},
           Case{"a free page with a checksum", 0, 5, {.crc = 1}, Errc::corrupt},
           Case{"a free page with a family", 0, 5, {.family = 1}, Errc::corrupt},
           Case{"a free page with a level", 0, 5, {.level = kind(1)}, Errc::corrupt},
           Case{"an index page without a level", 0, 5, {.kind = kind(2)}, Errc::corrupt},
           Case{"too high", 0, 5, {.kind = kind(2), .level = kind(5)}, Errc::corrupt},
           Case{"a leaf with a level", 0, 5, {.kind = kind(5), .level = kind(1)}, Errc::corrupt},
           Case{"flags", 0, 5, {.kind = kind(5), .flags = 1}, Errc::corrupt},
           Case{"reserved", 0, 5, {.kind = kind(5), .reserved = 1}, Errc::corrupt},
           Case{"a second pool root", 0, 5, {.kind = kind(1)}, Errc::corrupt},
           Case{"a pool root elsewhere", 256, 0, {.kind = kind(1)}, Errc::corrupt},
           Case{"no pool root", 0, 0, {.kind = kind(5)}, Errc::corrupt},
       }) {
    Prng prng(3);
    const Uuid uuid = random_uuid(prng);
    Blob content = random_info_page(prng, uuid, each.group);
    put(Bytes(content), entry_at(each.entry), each.info);
    expect_error(check_info_page(uuid, each.group, content), Errc::corrupt, "crc");
    seal(uuid, each.group, content);
    SCOPED_TRACE(each.what);
    expect_error(check_info_page(uuid, each.group, content), each.code,
                 fmt::format("page {}:", each.group + 1 + each.entry));
  }
}

TEST(Page, an_info_page_says_where_it_is_and_what_it_is) {
  Prng prng(4);
  const Uuid uuid = random_uuid(prng);
  Blob content = random_info_page(prng, uuid, 512);
  put(Bytes(content), offsetof(InfoPage, page), le64(256));
  seal(uuid, 512, content);
  expect_error(check_info_page(uuid, 512, content), Errc::corrupt, "says that it is page 256");
  put(Bytes(content), 0, le32(0));
  expect_error(check_info_page(uuid, 512, content), Errc::corrupt, "magic");
  expect_error(check_info_page(uuid, 512, Blob(kPageBytes)), Errc::corrupt, "magic");
}

TEST(Page, a_checksum_is_of_content_and_place_and_pool) {
  Prng prng(5);
  const Uuid uuid = random_uuid(prng);
  Blob content(kPageBytes);
  fill(prng, content);
  const uint32_t crc = page_crc(uuid, 7, content);
  EXPECT_EQ(crc, page_crc(uuid, 7, content));
  EXPECT_NE(crc, page_crc(random_uuid(prng), 7, content));
  for (int bit = 0; bit < 44; ++bit) {
    EXPECT_NE(crc, page_crc(uuid, PageNo{7} ^ (PageNo{1} << bit), content)) << "misplaced " << bit;
  }
  for (size_t bit = 0; bit < kPageBytes * 8; ++bit) {
    flip(content, bit);
    ASSERT_NE(crc, page_crc(uuid, 7, content)) << "bit " << bit;
    flip(content, bit);
  }
  EXPECT_NE(page_crc(uuid, 7, Blob(kPageBytes)), 0U) << "a page of zeroes is no free page";
}

TEST(Page, index_entries_make_the_round_trip) {
  Prng prng(6);
  for (int i = 0; i < 20000; ++i) {
    IndexEntry entry{prng.below(kPageNoMax + 1), prng.one_in(2)};
    if (is_info_page(entry.page)) entry = {};
    const auto decoded = decode_index_entry(encode(entry));
    ASSERT_TRUE(decoded) << text_of(decoded.error());
    EXPECT_EQ(*decoded, entry);
  }
}

TEST(Page, impossible_index_entries_are_refused) {
  constexpr uint64_t kOwn = uint64_t{1} << 63;
  EXPECT_TRUE(decode_index_entry(0));
  EXPECT_TRUE(decode_index_entry(kPageNoMax | kOwn));
  expect_error(decode_index_entry(kOwn), Errc::corrupt, "impossible");
  expect_error(decode_index_entry(256), Errc::corrupt, "impossible");
  expect_error(decode_index_entry(kOwn | 512), Errc::corrupt, "impossible");
  for (int bit = 44; bit < 63; ++bit) {
    expect_error(decode_index_entry(1 | (uint64_t{1} << bit)), Errc::corrupt, "impossible");
  }
  Prng prng(7);
  for (int i = 0; i < 20000; ++i) {
    const uint64_t raw = prng.next() & (prng.one_in(2) ? ~uint64_t{0} : kPageNoMax | kOwn);
    const auto decoded = decode_index_entry(raw);
    if (decoded) {
      EXPECT_EQ(encode(*decoded), raw);
    }
  }
}

}  // namespace
}  // namespace firn::format
