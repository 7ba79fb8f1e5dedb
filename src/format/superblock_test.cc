// SPDX-License-Identifier: Apache-2.0
#include "format/superblock.h"

#include <gtest/gtest.h>

#include "format/format_test_util.h"

namespace firn::format {
namespace {

Superblock random_superblock(Prng& prng) {
  Superblock superblock;
  superblock.uuid = random_uuid(prng);
  superblock.sequence = prng.next();
  superblock.epoch = prng.next();
  superblock.created_ns = prng.next();
  superblock.journal_slot_bytes = uint64_t{512} << prng.below(8);
  superblock.journal_slots = 2 + prng.below((uint64_t{1} << 32) - 1);
  superblock.journal_medium = static_cast<std::byte>(1 + prng.below(2));
  return superblock;
}

Superblock plain() {
  Prng prng(1);
  return random_superblock(prng);
}

// What an author of another version would have written: any fields under a right checksum.
std::array<std::byte, 512> sealed(Superblock superblock, uint16_t slot = 0) {
  superblock.slot = slot;
  superblock.crc = crc32c(view_of(superblock).subspan(12));
  std::array<std::byte, 512> bytes;
  std::ranges::copy(view_of(superblock), bytes.begin());
  return bytes;
}

TEST(Superblock, what_is_encoded_is_decoded) {
  Prng prng(2);
  for (int i = 0; i < 2000; ++i) {
    const Superblock superblock = random_superblock(prng);
    const auto slot = static_cast<uint16_t>(prng.below(2));
    const auto bytes = encode(superblock, slot);
    const auto decoded = decode_superblock(bytes, slot);
    ASSERT_TRUE(decoded) << text_of(decoded.error());
    EXPECT_TRUE(same(view_of(*decoded), bytes));
    EXPECT_EQ(decoded->slot, slot);
    EXPECT_EQ(decoded->uuid, superblock.uuid);
    EXPECT_EQ(decoded->sequence, superblock.sequence);
    EXPECT_EQ(decoded->epoch, superblock.epoch);
    EXPECT_EQ(decoded->created_ns, superblock.created_ns);
    EXPECT_EQ(decoded->journal_slot_bytes, superblock.journal_slot_bytes);
    EXPECT_EQ(decoded->journal_slots, superblock.journal_slots);
    EXPECT_EQ(decoded->journal_medium, superblock.journal_medium);
  }
}

TEST(Superblock, every_flipped_bit_is_detected) {
  for (const uint16_t slot : {uint16_t{0}, uint16_t{1}}) {
    auto bytes = encode(plain(), slot);
    for (size_t bit = 0; bit < bytes.size() * 8; ++bit) {
      flip(bytes, bit);
      EXPECT_FALSE(decode_superblock(bytes, slot)) << "bit " << bit;
      flip(bytes, bit);
    }
    EXPECT_TRUE(decode_superblock(bytes, slot));
  }
}

TEST(Superblock, every_tear_is_detected) {
  Superblock newer = plain();
  newer.sequence = newer.sequence + 1;
  newer.epoch = newer.epoch + 1;
  const auto before = encode(plain(), 0);
  const auto after = encode(newer, 0);
  for (size_t cut = 0; cut <= before.size(); ++cut) {
    auto torn = before;
    std::copy_n(after.begin(), cut, torn.begin());
    const auto decoded = decode_superblock(torn, 0);
    if (!same(torn, before) && !same(torn, after)) {
      expect_error(decoded, Errc::corrupt, "crc");
    } else {
      EXPECT_TRUE(decoded) << cut;
    }
  }
}

TEST(Superblock, a_copy_in_the_other_place_is_refused) {
  expect_error(decode_superblock(encode(plain(), 0), 1), Errc::corrupt, "copy 0");
  expect_error(decode_superblock(encode(plain(), 1), 0), Errc::corrupt, "copy 1");
}

TEST(Superblock, nothing_and_something_else_are_no_pool) {
  expect_error(decode_superblock(Blob(512), 0), Errc::not_found, "not a pool");
  expect_error(decode_superblock(Blob(512, std::byte{0xff}), 0), Errc::not_found, "not a pool");
  for (const size_t size : {0U, 1U, 511U}) {
    expect_error(decode_superblock(blob_of(View(encode(plain(), 0)).first(size)), 0), Errc::corrupt,
                 "bytes where 512");
  }
}

TEST(Superblock, other_versions_are_named) {
  Superblock superblock = plain();
  superblock.version = 0;
  expect_error(decode_superblock(sealed(superblock), 0), Errc::corrupt, "version 0");
  for (const uint16_t version : {uint16_t{2}, uint16_t{0x8000}, uint16_t{0xffff}}) {
    superblock.version = version;
    expect_error(decode_superblock(sealed(superblock), 0), Errc::too_new, "format version");
  }
}

TEST(Superblock, unknown_features_are_refused_kept_or_dropped_by_mask) {
  for (int bit = 0; bit < 64; ++bit) {
    const uint64_t mask = uint64_t{1} << bit;
    Superblock superblock = plain();
    superblock.incompat = mask;
    expect_error(decode_superblock(sealed(superblock), 0), Errc::too_new, "features");

    superblock = plain();
    superblock.ro_compat = mask;
    superblock.compat = mask;
    superblock.autoclear = mask;
    const auto decoded = decode_superblock(sealed(superblock), 0);
    ASSERT_TRUE(decoded) << text_of(decoded.error());
    EXPECT_EQ(decoded->ro_compat, mask);
    EXPECT_EQ(decoded->compat, mask);
    EXPECT_EQ(decoded->autoclear, mask);
    const auto rewritten = decode_superblock(encode(*decoded, 1), 1);
    ASSERT_TRUE(rewritten);
    EXPECT_EQ(rewritten->ro_compat, mask);
    EXPECT_EQ(rewritten->compat, mask);
    EXPECT_EQ(rewritten->autoclear, 0U) << "what we do not keep up must not be vouched for";
  }
}

TEST(Superblock, reserved_bytes_need_a_feature_that_explains_them) {
  for (const size_t at : {0U, 1U, 200U, 403U}) {
    Superblock superblock = plain();
    superblock.reserved[at] = std::byte{1};
    expect_error(decode_superblock(sealed(superblock), 0), Errc::corrupt, "reserved");
    superblock.autoclear = 1;
    expect_error(decode_superblock(sealed(superblock), 0), Errc::corrupt, "reserved");
    for (le64 Superblock::*mask : {&Superblock::ro_compat, &Superblock::compat}) {
      Superblock explained = superblock;
      explained.*mask = 1;
      const auto decoded = decode_superblock(sealed(explained), 0);
      ASSERT_TRUE(decoded) << text_of(decoded.error());
      const auto rewritten = decode_superblock(encode(*decoded, 1), 1);
      ASSERT_TRUE(rewritten);
      EXPECT_TRUE(same(rewritten->reserved, superblock.reserved)) << "kept as they are";
    }
  }
}

TEST(Superblock, sizes_that_cannot_be_are_refused) {
  struct Case {
    uint64_t slot_bytes, slots;
    bool good;
  };
  constexpr uint64_t kMost = uint64_t{1} << 32;
  for (const Case& each : {
           Case{512, 2, true},
           Case{65536, kMost, true},
           Case{4096, 4096, true},
           Case{0, 2, false},
           Case{256, 2, false},
           Case{513, 2, false},
           Case{131072, 2, false},
           Case{uint64_t{1} << 63, 2, false},
           Case{UINT64_MAX, 2, false},
           Case{4096, 0, false},
           Case{4096, 1, false},
           Case{4096, kMost + 1, false},
           Case{4096, UINT64_MAX, false},
       }) {
    Superblock superblock = plain();
    superblock.journal_slot_bytes = each.slot_bytes;
    superblock.journal_slots = each.slots;
    const auto decoded = decode_superblock(sealed(superblock), 0);
    EXPECT_EQ(decoded.has_value(), each.good) << each.slot_bytes << ' ' << each.slots;
    if (!each.good) expect_error(decoded, Errc::corrupt, "cannot be");
  }
  for (std::byte Superblock::*shift :
       {&Superblock::block_shift, &Superblock::grain_shift, &Superblock::page_shift}) {
    Superblock superblock = plain();
    superblock.*shift = std::byte{13};
    expect_error(decode_superblock(sealed(superblock), 0), Errc::unsupported, "size");
  }
  for (const int medium : {0, 3, 255}) {
    Superblock superblock = plain();
    superblock.journal_medium = static_cast<std::byte>(medium);
    expect_error(decode_superblock(sealed(superblock), 0), Errc::too_new, "journal medium");
  }
}

TEST(Superblock, whatever_is_decoded_can_be_encoded) {
  Prng prng(3);
  int good = 0;
  for (int i = 0; i < 20000; ++i) {
    Superblock superblock = random_superblock(prng);
    auto bytes = sealed(superblock, static_cast<uint16_t>(prng.below(3)));
    for (uint64_t changes = prng.below(3); changes > 0; --changes) {
      bytes[12 + prng.below(500)] = static_cast<std::byte>(prng.next());
    }
    put(Bytes(bytes), 8, le32(crc32c(View(bytes).subspan(12))));
    const auto decoded = decode_superblock(bytes, 0);
    if (!decoded) continue;
    ++good;
    EXPECT_EQ(decoded->slot, 0);
    EXPECT_EQ(decoded->version, kPoolVersion);
    EXPECT_EQ(decoded->incompat & ~kKnownIncompat, 0U);
    EXPECT_TRUE(decode_superblock(encode(*decoded, 1), 1));
  }
  EXPECT_GT(good, 1000);
}

}  // namespace
}  // namespace firn::format
