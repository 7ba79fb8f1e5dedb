// SPDX-License-Identifier: Apache-2.0
// Any bytes as each piece of a seSparse image; the first byte selects which. What is accepted lies
// inside the file, never wraps, and is written back as it was read.
#include <algorithm>
#include <array>
#include <cstdint>
#include <string>

#include "base/check.h"
#include "format/sesparse.h"

namespace {

using namespace firn;
using namespace firn::format::sesparse;

template <class T>
bool refused(const Result<T>& result) {
  if (result) return false;
  CHECK(!text_of(result.error()).empty());
  return true;
}

void check_layout(const Layout& layout, uint64_t file_bytes) {
  CHECK(layout.bytes > 0 && layout.bytes <= kDiskBytesMax);
  CHECK(Range({layout.volatile_header, kHeaderBytes}).within(file_bytes));
  CHECK(Range({layout.directory, layout.directory_entries() * 8}).within(file_bytes));
  CHECK(layout.table_count <= file_bytes / kTableBytes);
  CHECK(Range({layout.tables, layout.table_count * kTableBytes}).within(file_bytes));
  CHECK(layout.grain_count <= file_bytes / kGrainBytes);
  CHECK(Range({layout.grains, layout.grain_count * kGrainBytes}).within(file_bytes));
}

// The header, for a file of as many bytes as the eight bytes before it say.
void decode_sized_header(View input) {
  if (input.size() < 8) return;
  const uint64_t file_bytes = load<le64>(input);
  const Result<Layout> layout = decode_header(input.subspan(8), file_bytes);
  if (!refused(layout)) check_layout(*layout, file_bytes);
}

void decode_entries(View input) {
  constexpr uint64_t kPlaces = 5000;  // More than the 4,096 at which the rotation begins.
  for (size_t at = 0; at + 8 <= input.size(); at += 8) {
    const uint64_t raw = load<le64>(input.subspan(at));
    const Result<Entry> entry = decode_entry(raw, at / 8, kPlaces);
    if (!refused(entry)) {
      CHECK(entry->type != EntryType::data || (entry->grain < kPlaces && encode(*entry) == raw));
      CHECK(entry->type != EntryType::unallocated || raw == 0);
    }
    const auto table = decode_directory_entry(raw, at / 8, kPlaces);
    if (refused(table)) continue;
    CHECK(table->has_value() ? **table < kPlaces && encode_directory_entry(**table) == raw
                             : raw == 0);
  }
}

void decode_text(View input) {
  const std::string text(static_cast<const char*>(static_cast<const void*>(input.data())),
                         input.size());
  const Result<Descriptor> descriptor = decode_descriptor(text);
  if (refused(descriptor)) return;
  CHECK(!descriptor->extent.empty() && descriptor->sectors > 0);
  CHECK(descriptor->extent.find_first_of(std::string_view("\"\n\0", 3)) == std::string::npos);
  if (descriptor->has_parent() || !can_be_named(descriptor->extent)) return;
  const Result<Descriptor> again = decode_descriptor(encode(*descriptor));
  CHECK(again && again->extent == descriptor->extent && again->sectors == descriptor->sectors);
}

// The input is a file: every entry of its map that passes leads to bytes inside of it.
void walk(View file) {
  if (file.size() < kHeaderBytes) return;
  const Result<Layout> layout = decode_header(file, file.size());
  if (refused(layout)) return;
  check_layout(*layout, file.size());
  if (refused(decode_volatile_header(file.subspan(layout->volatile_header)))) return;
  const uint64_t entries = std::min<uint64_t>(layout->directory_entries(), 64);
  for (uint64_t i = 0; i < entries; ++i) {
    const uint64_t raw = load<le64>(file.subspan(layout->directory + i * 8));
    const auto table = decode_directory_entry(raw, i, layout->table_count);
    if (refused(table) || !table->has_value()) continue;
    const View content = file.subspan(layout->tables + **table * kTableBytes, kTableBytes);
    for (uint64_t k = 0; k < kTableEntries; ++k) {
      const Result<Entry> entry =
          decode_entry(load<le64>(content.subspan(k * 8)), k, layout->grain_count);
      if (refused(entry)) break;
      if (entry->type != EntryType::data) continue;
      CHECK(file.subspan(layout->grains + entry->grain * kGrainBytes, kGrainBytes).size() ==
            kGrainBytes);
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const View input = std::as_bytes(std::span(data, size));
  if (input.empty()) return 0;
  const View rest = input.subspan(1);
  static_cast<void>(is_extent(rest));
  switch (static_cast<unsigned>(input[0]) % 5) {
    case 0:
      decode_sized_header(rest);
      break;
    case 1:
      static_cast<void>(refused(decode_volatile_header(rest)));
      break;
    case 2:
      decode_entries(rest);
      break;
    case 3:
      decode_text(rest);
      break;
    default:
      walk(rest);
      break;
  }
  return 0;
}
