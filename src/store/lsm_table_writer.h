// SPDX-License-Identifier: Apache-2.0
// Makes one table of a tree in the bucket out of entries in order, in memory. It does not put it
// anywhere.
#pragma once

#include <cstdint>
#include <vector>

#include "format/lsm_catalog.h"
#include "format/lsm_table.h"
#include "io/io.h"

namespace firn::store {

struct LsmTableShape {
  uint64_t table_bytes = 16 * kMiB;
  uint64_t block_bytes = 16 * kKiB;
  bool compress = true;
};

// Bytes in pieces, so that growing never moves what is there: a writer would feel it.
using LsmBody = std::vector<std::vector<std::byte>>;

struct LsmMadeTable {
  format::LsmTable table;  // But for run and level.
  LsmBody body;
};

class LsmTableWriter {
 public:
  LsmTableWriter(const format::Uuid& tree, const format::LsmTableId& id,
                 const LsmTableShape& shape);
  // Keys ascend. May wait: other fibers run between two blocks, which helper threads compress.
  void add(Io& io, const format::LsmEntry& entry);
  bool empty() const { return made_.table.entries == 0; }
  bool full() const { return made_.table.bytes + block_.bytes() >= shape_.table_bytes; }
  LsmMadeTable finish(Io& io);

 private:
  void end_block(Io& io);
  void append(View bytes);

  format::Uuid tree_;
  LsmTableShape shape_;
  format::LsmBlockMaker block_;
  format::LsmTailMaker tail_;
  LsmMadeTable made_;
};

}  // namespace firn::store
