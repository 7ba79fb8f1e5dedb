// SPDX-License-Identifier: Apache-2.0
// Text for any artifact's bytes: a verdict in the first line, then every field that can be told.
//
//  I1  Any bytes of any length get a text; it is printable ASCII and line ends only.
//  I2  The verdict is that of the decoder itself: "good", or "BAD" with the decoder's words.
//  I3  Bytes that are missing at the end count as zeroes, and the verdict says so.
// Pure: reads no file and finds no pool; whoever has the file gives the bytes and where they lay.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "format/grain_map.h"
#include "format/page.h"

namespace firn::format {

enum class Artifact : uint8_t {
  superblock = 1,
  info_page = 2,
  pool_root = 3,
  index_page = 4,
  block_page = 5,
  catalog_page = 6,
  map_page = 7,
  journal_slot = 8,
  data_label = 9,
  change_log_page = 10,
  intent_page = 11,
};

struct InspectContext {
  std::optional<Uuid> uuid;          // Of the pool; without it what it seals is not verified.
  uint64_t place = 0;                // Superblock: which copy. Page: its number.
  GrainNo grains = kGrainNoMax + 1;  // Of the pool: map entries beyond it are impossible.
};

// "superblock", "info", "pool-root", "index", "blocks", "catalog", "map", "journal-slot",
// "data-label", "change-log", "change-intents".
std::string_view name_of(Artifact artifact);
std::optional<Artifact> artifact_named(std::string_view name);
// By magic. Index, block, catalog, map and change pages have none: their page-info entry knows.
std::optional<Artifact> recognise(View bytes);
// How many bytes one is; of a journal slot the least.
size_t size_of(Artifact artifact);

std::string inspect(Artifact artifact, View bytes, const InspectContext& context = {});

}  // namespace firn::format
