// SPDX-License-Identifier: Apache-2.0
// The samples of which the golden files of the tree in the bucket are made, and what is broken in
// the bad ones. Used by make_golden and by the tests; no part of the product.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "format/lsm_catalog.h"
#include "format/lsm_log.h"
#include "format/lsm_table.h"

namespace firn::format {

inline Uuid lsm_sample_uuid(uint8_t first) {
  Uuid uuid{};
  for (size_t i = 0; i < uuid.size(); ++i) uuid[i] = static_cast<std::byte>(first + i);
  return uuid;
}
inline const LsmTableId kLsmSampleId{7, 3};

// Two blocks: "apple" = "red", "apricot" = 100 times 'a'; "banana" removed, "cherry" empty.
inline std::vector<std::byte> lsm_sample_table() {
  LsmTailMaker tail;
  std::vector<std::byte> body;
  const auto block = [&](std::vector<LsmEntry> entries) {
    LsmBlockMaker maker;
    for (const LsmEntry& entry : entries) {
      maker.add(entry);
      tail.add_key(view_of_text(entry.key));
    }
    LsmBlock made;
    made.last_key = maker.last_key();
    made.at = tail.data_bytes();
    // Not by zstd: other versions of the library compress to other bytes.
    LsmPacked packed = pack_lsm_block(maker.take(), false);
    made.stored_bytes = static_cast<uint32_t>(packed.stored.size());
    made.bytes = packed.bytes;
    made.crc = lsm_block_crc(packed.stored, kLsmSampleId, made.at);
    tail.add_block(made);
    append_bytes(body, packed.stored);
  };
  const std::string many(100, 'a');
  block({{"apple", "red"}, {"apricot", many}});
  block({{"banana", "", true}, {"cherry", ""}});
  append_bytes(body, tail.finish(lsm_sample_uuid(0x10), kLsmSampleId, 1));
  return body;
}
// How much of it is index, filter and footer.
inline constexpr size_t kLsmSampleDataBytes = 138;

inline LsmCatalog lsm_sample_catalog() {
  LsmCatalog catalog;
  catalog.tree = lsm_sample_uuid(0x10);
  catalog.version = 41;
  catalog.epoch = 7;
  catalog.stamp = lsm_sample_uuid(0x40);
  catalog.written_ns = 1700000000123456789;
  catalog.tables = {
      {{7, 3}, 12, 0, 5000, 90, 4, 300, "apple", "cherry", {}},
      {{6, 9}, 11, 1, 9000, 200, 0, 500, "a", "m", {}},
      {{6, 10}, 11, 1, 8000, 180, 0, 400, "n", "z", {}},
  };
  catalog.retired = {{{5, 1}, 40, 1700000000000000000}};
  catalog.log = lsm_sample_uuid(0x60);
  catalog.log_segment = 17;
  catalog.floor = 20;
  catalog.doomed = 30;
  catalog.doomed_since_ns = 1700000000000000001;
  catalog.others = {{2, {std::byte{1}, std::byte{2}, std::byte{3}}}};
  return catalog;
}

struct LsmBadCatalog {
  const char* name;
  Errc code;
  const char* text;
  std::function<void(LsmCatalog&)> change;
};
inline std::vector<LsmBadCatalog> lsm_bad_catalogs() {
  return {
      {"order", Errc::corrupt, "out of order", [](LsmCatalog& c) { c.tables[0].run = 10; }},
      {"overlap", Errc::corrupt, "overlap", [](LsmCatalog& c) { c.tables[2].first_key = "m"; }},
      {"keys", Errc::corrupt, "impossible table",
       [](LsmCatalog& c) { c.tables[0].first_key = "d"; }},
      {"twice", Errc::corrupt, "twice",
       [](LsmCatalog& c) {
         c.retired[0].id = {7, 3};
       }},
      {"future", Errc::corrupt, "impossible table",
       [](LsmCatalog& c) { c.tables[0].id.epoch = 8; }},
      {"floor", Errc::corrupt, "floor", [](LsmCatalog& c) { c.floor = 31; }},
      {"odd", Errc::too_new, "type 9", [](LsmCatalog& c) { c.others[0].type = 9; }},
      {"field", Errc::too_new, "field 1",
       [](LsmCatalog& c) {
         c.tables[1].fields.assign({std::byte{1}, {}, {}, {}});
       }},
  };
}

inline LsmPointer lsm_sample_pointer(const std::array<char, 8>& magic) {
  LsmPointer pointer;
  pointer.magic = magic;
  pointer.tree = lsm_sample_uuid(0x10);
  pointer.version = 41;
  pointer.epoch = 7;
  pointer.stamp = lsm_sample_uuid(0x40);
  pointer.written_ns = 1700000000123456789;
  return pointer;
}

inline LsmLogHead lsm_sample_log_head() {
  LsmLogHead head;
  head.tree = lsm_sample_uuid(0x10);
  head.log = lsm_sample_uuid(0x60);
  head.segment = 18;
  return head;
}
// A segment: its head, the link, a put of "k" = "value" with a removal of "old", one more put.
inline std::vector<std::byte> lsm_sample_log() {
  const LsmLogHead head = lsm_sample_log_head();
  std::vector<std::byte> bytes;
  append_bytes(bytes, encode(head));
  std::vector<std::byte> batch;
  append_lsm_link(batch, 5);
  append_lsm_record(bytes, head, bytes.size(), 1, batch);
  batch.clear();
  append_lsm_put(batch, view_of_text("k"), view_of_text("value"));
  append_lsm_removal(batch, view_of_text("old"));
  append_lsm_record(bytes, head, bytes.size(), 2, batch);
  batch.clear();
  append_lsm_put(batch, view_of_text("last"), view_of_text("one"));
  append_lsm_record(bytes, head, bytes.size(), 3, batch);
  return bytes;
}

}  // namespace firn::format
