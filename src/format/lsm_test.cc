// SPDX-License-Identifier: Apache-2.0
// The formats of the tree in the bucket: what is made is read back, every flipped bit and every cut
// is seen, and the golden files are what they are.
#include <fmt/core.h>
#include <gtest/gtest.h>

#include <map>

#include "format/format_test_util.h"
#include "format/lsm_golden_test.h"

namespace firn::format {
namespace {

const Uuid kTree = lsm_sample_uuid(0x10);

std::map<std::string, std::string> random_entries(Prng& prng, size_t count) {
  std::map<std::string, std::string> entries;
  while (entries.size() < count) {
    std::string key(1 + prng.below(prng.one_in(9) ? kLsmKeyMax : 20), 'k');
    for (char& c : key) c = static_cast<char>(prng.one_in(3) ? prng.next() : 'k');
    entries[key] = std::string(prng.below(200), static_cast<char>(prng.next()));
  }
  return entries;
}

TEST(LsmTable, blocks_are_read_as_they_were_made) {
  Prng prng(1);
  for (int round = 0; round < 50; ++round) {
    const auto entries = random_entries(prng, 1 + prng.below(60));
    LsmBlockMaker maker;
    for (const auto& [key, value] : entries) {
      maker.add({key, value.size() < 20 ? "" : value, value.size() < 20});
    }
    for (const bool compress : {false, true}) {
      LsmBlockMaker same_again = maker;
      const LsmPacked packed = pack_lsm_block(same_again.take(), compress);
      LsmBlock block;
      block.at = 4711;
      block.bytes = packed.bytes;
      block.stored_bytes = static_cast<uint32_t>(packed.stored.size());
      block.codec = packed.codec;
      block.crc = lsm_block_crc(packed.stored, kLsmSampleId, block.at);
      const auto bytes = unpack_lsm_block(packed.stored, block, kLsmSampleId);
      ASSERT_TRUE(bytes);
      LsmBlockReader reader(*bytes);
      for (const auto& [key, value] : entries) {
        ASSERT_TRUE(*reader.next());
        EXPECT_EQ(reader.entry().key, key);
        EXPECT_EQ(reader.entry().removal, value.size() < 20);
        EXPECT_EQ(reader.entry().value, value.size() < 20 ? "" : value);
      }
      EXPECT_FALSE(*reader.next());
      expect_error(unpack_lsm_block(packed.stored, block, {7, 4}), Errc::corrupt, "checksum");
      ++block.at;
      expect_error(unpack_lsm_block(packed.stored, block, kLsmSampleId), Errc::corrupt, "checksum");
    }
  }
}

TEST(LsmTable, the_filter_knows_every_key_and_few_others) {
  LsmTailMaker maker;
  for (int i = 0; i < 10000; ++i) maker.add_key(view_of_text(fmt::format("key {}", i)));
  maker.add_block({"z", 0, 10, 10, LsmCodec::raw, 1});
  const auto tail = decode_lsm_tail(maker.finish(kTree, kLsmSampleId, 0), kTree, kLsmSampleId);
  ASSERT_TRUE(tail) << text_of(tail.error());
  int wrong = 0;
  for (int i = 0; i < 10000; ++i) {
    ASSERT_TRUE(tail->may_have(lsm_hash(view_of_text(fmt::format("key {}", i)))));
    wrong += tail->may_have(lsm_hash(view_of_text(fmt::format("other {}", i)))) ? 1 : 0;
  }
  EXPECT_LT(wrong, 200) << "about one in a hundred";
}

TEST(LsmTable, every_flipped_bit_of_a_tail_is_seen) {
  const Blob table = lsm_sample_table();
  const View tail = View(table).subspan(kLsmSampleDataBytes);
  ASSERT_TRUE(decode_lsm_tail(tail, kTree, kLsmSampleId));
  for (size_t bit = 0; bit < tail.size() * 8; ++bit) {
    Blob bad = blob_of(tail);
    flip(bad, bit);
    EXPECT_FALSE(decode_lsm_tail(bad, kTree, kLsmSampleId)) << bit;
  }
  for (size_t bytes = 0; bytes < tail.size(); ++bytes) {
    EXPECT_FALSE(decode_lsm_tail(tail.first(bytes), kTree, kLsmSampleId)) << bytes;
    EXPECT_FALSE(decode_lsm_tail(tail.last(bytes), kTree, kLsmSampleId)) << bytes;
  }
}

TEST(LsmTable, golden) {
  const Blob made = lsm_sample_table();
  const Blob table = golden("lsm_table-v1.bin", made.size());
  EXPECT_TRUE(same(table, made));
  const auto tail = decode_lsm_tail(View(table).subspan(kLsmSampleDataBytes), kTree, kLsmSampleId);
  ASSERT_TRUE(tail) << text_of(tail.error());
  EXPECT_EQ(tail->footer.entries, 4U);
  EXPECT_EQ(tail->footer.removals, 1U);
  ASSERT_EQ(tail->blocks.size(), 2U);
  EXPECT_EQ(tail->blocks[0].last_key, "apricot");
  EXPECT_EQ(tail->blocks[1].last_key, "cherry");
  EXPECT_TRUE(tail->may_have(lsm_hash(view_of_text("banana"))));
  const auto block = unpack_lsm_block(View(table).first(tail->blocks[0].stored_bytes),
                                      tail->blocks[0], kLsmSampleId);
  ASSERT_TRUE(block);
  LsmBlockReader reader(*block);
  ASSERT_TRUE(*reader.next());
  EXPECT_EQ(reader.entry().key, "apple");
  EXPECT_EQ(reader.entry().value, "red");
  struct Bad {
    const char* name;
    Errc code;
    const char* text;
  };
  for (const Bad& bad :
       {Bad{"version", Errc::too_new, "version 2"}, Bad{"tree", Errc::corrupt, "another tree"},
        Bad{"number", Errc::corrupt, "another table"}, Bad{"blocks", Errc::corrupt, "incomplete"},
        Bad{"reserved", Errc::corrupt, "reserved"}}) {
    const Blob bytes = golden(fmt::format("lsm_table-v1-bad-{}.bin", bad.name), made.size());
    const View wrong = View(bytes).subspan(kLsmSampleDataBytes);
    expect_error(decode_lsm_tail(wrong, kTree, kLsmSampleId), bad.code, bad.text);
  }
  const Blob rotten = golden("lsm_table-v1-bad-rot.bin", made.size());
  expect_error(unpack_lsm_block(View(rotten).first(tail->blocks[0].stored_bytes), tail->blocks[0],
                                kLsmSampleId),
               Errc::corrupt, "checksum of the block at 0");
}

TEST(LsmCatalog, golden) {
  const Blob made = encode(lsm_sample_catalog());
  const Blob bytes = golden("lsm_catalog-v1.bin", made.size());
  EXPECT_TRUE(same(made, bytes));
  const auto catalog = decode_lsm_catalog(bytes, 41);
  ASSERT_TRUE(catalog) << text_of(catalog.error());
  EXPECT_TRUE(*catalog == lsm_sample_catalog()) << "records of unknown even types included";
  expect_error(decode_lsm_catalog(bytes, 42), Errc::corrupt, "another number");
  for (const LsmBadCatalog& bad : lsm_bad_catalogs()) {
    LsmCatalog changed = lsm_sample_catalog();
    bad.change(changed);
    const size_t size = encode(changed).size();
    const Blob wrong = golden(fmt::format("lsm_catalog-v1-bad-{}.bin", bad.name), size);
    expect_error(decode_lsm_catalog(wrong, 41), bad.code, bad.text);
  }
}

TEST(LsmCatalog, every_flipped_bit_and_every_cut_is_seen) {
  const Blob good = encode(lsm_sample_catalog());
  for (size_t bit = 0; bit < good.size() * 8; ++bit) {
    Blob bad = good;
    flip(bad, bit);
    EXPECT_FALSE(decode_lsm_catalog(bad, 41)) << bit;
  }
  for (size_t bytes = 0; bytes < good.size(); ++bytes) {
    EXPECT_FALSE(decode_lsm_catalog(View(good).first(bytes), 41)) << bytes;
  }
}

TEST(LsmCatalog, pointers) {
  for (const auto& [magic, name] : {std::pair{kLsmNewestMagic, "lsm_catalog-v1-newest.bin"},
                                    std::pair{kLsmEpochMagic, "lsm_catalog-v1-epoch.bin"}}) {
    const Blob bytes = golden(name, sizeof(LsmPointer));
    const auto pointer = decode_lsm_pointer(bytes, magic);
    ASSERT_TRUE(pointer) << text_of(pointer.error());
    EXPECT_EQ(pointer->version, 41U);
    EXPECT_EQ(pointer->epoch, 7U);
    EXPECT_TRUE(same(encode(*pointer), bytes));
    for (size_t bit = 0; bit < bytes.size() * 8; ++bit) {
      Blob bad = bytes;
      flip(bad, bit);
      EXPECT_FALSE(decode_lsm_pointer(bad, magic)) << bit;
    }
    EXPECT_FALSE(decode_lsm_pointer(bytes, kLsmCatalogMagic));
  }
}

TEST(LsmLog, golden) {
  const Blob made = lsm_sample_log();
  const Blob bytes = golden("lsm_log-v1.bin", made.size());
  EXPECT_TRUE(same(made, bytes));
  const auto head = decode_lsm_log_head(bytes);
  ASSERT_TRUE(head) << text_of(head.error());
  EXPECT_EQ(head->segment, 18U);
  EXPECT_TRUE(same(view_of(*head), View(encode(lsm_sample_log_head()))));
  uint64_t at = sizeof(LsmLogHead);
  const View link = decode_lsm_record(View(bytes).subspan(at), *head, at, 1);
  EXPECT_EQ(decode_lsm_link(link), 5U);
  at += sizeof(LsmLogRecordHead) + link.size();
  const View batch = decode_lsm_record(View(bytes).subspan(at), *head, at, 2);
  ASSERT_FALSE(batch.empty());
  LsmBatchReader reader(batch);
  ASSERT_TRUE(*reader.next());
  EXPECT_EQ(reader.entry().key, "k");
  EXPECT_EQ(reader.entry().value, "value");
  ASSERT_TRUE(*reader.next());
  EXPECT_TRUE(reader.entry().removal);
  EXPECT_FALSE(*reader.next());
  at += sizeof(LsmLogRecordHead) + batch.size();
  const Blob torn = golden("lsm_log-v1-bad-torn.bin", made.size() - 2);
  EXPECT_TRUE(decode_lsm_record(View(torn).subspan(at), *head, at, 3).empty());
  EXPECT_FALSE(decode_lsm_record(View(bytes).subspan(at), *head, at, 3).empty());
  const Blob later = golden("lsm_log-v1-bad-version.bin", made.size());
  expect_error(decode_lsm_log_head(later), Errc::too_new, "version 2");
  expect_error(decode_lsm_log_head(Blob(200)), Errc::not_found, "no segment");
  expect_error(decode_lsm_log_head(Blob()), Errc::not_found, "no segment");
}

TEST(LsmLog, every_flipped_bit_of_a_record_ends_the_log) {
  const Blob good = lsm_sample_log();
  const auto head = decode_lsm_log_head(good);
  ASSERT_TRUE(head);
  const uint64_t at = sizeof(LsmLogHead) + sizeof(LsmLogRecordHead) + 9;
  const size_t bytes = decode_lsm_record(View(good).subspan(at), *head, at, 2).size();
  ASSERT_GT(bytes, 0U);
  for (size_t bit = at * 8; bit < (at + sizeof(LsmLogRecordHead) + bytes) * 8; ++bit) {
    Blob bad = good;
    flip(bad, bit);
    EXPECT_TRUE(decode_lsm_record(View(bad).subspan(at), *head, at, 2).empty()) << bit;
  }
  LsmLogHead other = *head;
  other.segment = 14;  // The same file, four segments ago.
  EXPECT_TRUE(decode_lsm_record(View(good).subspan(at), other, at, 2).empty());
}

}  // namespace
}  // namespace firn::format
