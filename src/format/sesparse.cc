// SPDX-License-Identifier: Apache-2.0
#include "format/sesparse.h"

#include <fmt/core.h>

#include <algorithm>
#include <charconv>

#include "base/check.h"

namespace firn::format::sesparse {
namespace {

constexpr uint64_t kCapacityMax = kDiskBytesMax / kSectorBytes;
constexpr uint64_t kSectorsMax = UINT64_MAX / kSectorBytes;  // So that bytes never wrap.
constexpr uint64_t kRegionUnit = kMiB / kSectorBytes;  // What a new extent's regions align to.
constexpr uint64_t kRegionOfJournal = 2048;
constexpr uint64_t kDirectorySectorEntries = kSectorBytes / 8;

uint64_t sectors_for(uint64_t bytes) { return (bytes + kSectorBytes - 1) / kSectorBytes; }

Result<void> check_shape(const ConstHeader& header) {
  if (header.magic != kMagic) {
    return fail(Errc::not_found, "seSparse header: no magic, this is no seSparse extent");
  }
  if (header.version != kVersion) {
    return fail(Errc::unsupported, "seSparse header: version {}.{}; only 2.1 is known",
                header.version >> 32, header.version & 0xffffffff);
  }
  if (header.grain_size != kGrainSectors || header.grain_table_size != kTableSectors) {
    return fail(Errc::unsupported,
                "seSparse header: grains of {} sectors and tables of {}; only 8 and 64 are known",
                header.grain_size.get(), header.grain_table_size.get());
  }
  if (header.flags != 0) {
    return fail(Errc::unsupported, "seSparse header: flags {:#x} are unknown", header.flags.get());
  }
  const bool reserved = std::ranges::any_of(header.reserved, [](le64 each) { return each != 0; });
  if (reserved || !all_zero(header.padding)) {
    return fail(Errc::unsupported, "seSparse header: reserved fields are not zero");
  }
  if (header.capacity == 0 || header.capacity > kCapacityMax) {
    return fail(Errc::corrupt, "seSparse header: a capacity of {} sectors; 1 to {} can be",
                header.capacity.get(), kCapacityMax);
  }
  return ok;
}

Result<void> check_places(const ConstHeader& header, uint64_t file_bytes) {
  struct Named {
    const char* name;
    Region region;
    uint64_t least;  // Its size, in sectors.
  };
  const uint64_t file_sectors = std::min(file_bytes / kSectorBytes, kSectorsMax);
  const uint64_t tables =
      (header.capacity + kTableEntries * kGrainSectors - 1) / (kTableEntries * kGrainSectors);
  const uint64_t directory = (tables + kDirectorySectorEntries - 1) / kDirectorySectorEntries;
  for (const Named& each : {
           Named{"volatile header", header.volatile_header, 1},
           Named{"journal header", header.journal_header, 0},
           Named{"journal", header.journal, 0},
           Named{"grain directory", header.grain_directory, directory},
           Named{"grain tables", header.grain_tables, 0},
           Named{"free bitmap", header.free_bitmap, 0},
           Named{"back map", header.back_map, 0},
       }) {
    const uint64_t offset = each.region.offset;
    const uint64_t size = each.region.size;
    if (size < each.least) {
      return fail(Errc::corrupt, "seSparse header: a {} of {} sectors; this disk needs {}",
                  each.name, size, each.least);
    }
    if (!Range{offset, size}.within(file_sectors) || (offset == 0 && size > 0)) {
      return fail(Errc::corrupt,
                  "seSparse header: the {} at sector {}, {} long, is not inside the file of {} "
                  "sectors",
                  each.name, offset, size, file_sectors);
    }
  }
  if (header.grains.offset == 0 || header.grains.offset > file_sectors) {
    return fail(Errc::corrupt,
                "seSparse header: the grains begin at sector {}, the file has {} sectors",
                header.grains.offset.get(), file_sectors);
  }
  return ok;
}

// --- the descriptor's text

std::string_view trimmed(std::string_view text) {
  const char* blanks = " \t\r";
  const size_t first = text.find_first_not_of(blanks);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(blanks) - first + 1);
}

// The next word, cut off the front of `line`.
std::string_view word_of(std::string_view& line) {
  line = trimmed(line);
  const size_t end = std::min(line.find_first_of(" \t"), line.size());
  const std::string_view word = line.substr(0, end);
  line = trimmed(line.substr(end));
  return word;
}

std::string_view unquoted(std::string_view text) {
  if (text.size() >= 2 && text.front() == '"' && text.back() == '"') {
    return text.substr(1, text.size() - 2);
  }
  return text;
}

bool is_access(std::string_view word) {
  return word == "RW" || word == "RDONLY" || word == "NOACCESS";
}

template <class T>
bool parse(std::string_view text, int base, T& into) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), into, base);
  return error == std::errc() && end == text.data() + text.size() && !text.empty();
}

// "RW 131072 SESPARSE "name"", from behind the first word.
Result<void> take_extent(std::string_view access, std::string_view rest, Descriptor& into) {
  if (!into.extent.empty()) {
    return fail(Errc::unsupported,
                "seSparse descriptor: more than one extent; only disks of one can be imported");
  }
  const std::string_view sectors = word_of(rest);
  const std::string_view type = word_of(rest);
  if (access != "RW" || type != "SESPARSE") {
    return fail(Errc::unsupported,
                "seSparse descriptor: an extent that is not RW ... SESPARSE but of another kind");
  }
  const std::string_view name = unquoted(rest);
  const bool quoted = name.size() + 2 == rest.size();
  if (!parse(sectors, 10, into.sectors) || into.sectors == 0 || !quoted || name.empty() ||
      name.find('"') != std::string_view::npos) {
    return fail(Errc::corrupt,
                "seSparse descriptor: the extent line is not RW SECTORS SESPARSE \"NAME\"");
  }
  into.extent = name;
  return ok;
}

Result<void> take_pair(std::string_view key, std::string_view value, Descriptor& into,
                       bool& is_sesparse) {
  if (key == "createType" && value == "seSparse") is_sesparse = true;
  if (key == "parentFileNameHint") into.parent = value;
  const bool wanted = key == "CID" || key == "parentCID";
  if (!wanted) return ok;
  uint32_t& id = key == "CID" ? into.content_id : into.parent_id;
  if (!parse(value, 16, id)) {
    return fail(Errc::corrupt, "seSparse descriptor: the {} is not a number in hexadecimal", key);
  }
  return ok;
}

}  // namespace

bool is_extent(View head) { return head.size() >= 8 && load<le64>(head) == kMagic; }

Result<Layout> decode_header(View bytes, uint64_t file_bytes) {
  if (bytes.size() < sizeof(ConstHeader)) {
    return fail(Errc::corrupt, "seSparse header: {} bytes where 512 were expected", bytes.size());
  }
  const auto header = load<ConstHeader>(bytes);
  TRY(check_shape(header));
  TRY(check_places(header, file_bytes));
  Layout layout;
  layout.bytes = header.capacity * kSectorBytes;
  layout.volatile_header = header.volatile_header.offset * kSectorBytes;
  layout.directory = header.grain_directory.offset * kSectorBytes;
  layout.tables = header.grain_tables.offset * kSectorBytes;
  layout.table_count = header.grain_tables.size / kTableSectors;
  layout.free_bitmap = header.free_bitmap.offset * kSectorBytes;
  layout.back_map = header.back_map.offset * kSectorBytes;
  layout.grains = header.grains.offset * kSectorBytes;
  const uint64_t behind = file_bytes / kSectorBytes - header.grains.offset;
  layout.grain_count = std::min<uint64_t>(header.grains.size, behind) / kGrainSectors;
  return layout;
}

Result<VolatileHeader> decode_volatile_header(View bytes) {
  if (bytes.size() < sizeof(VolatileHeader)) {
    return fail(Errc::corrupt, "seSparse volatile header: {} bytes where 512 were expected",
                bytes.size());
  }
  const auto header = load<VolatileHeader>(bytes);
  if (header.magic != kVolatileMagic) {
    return fail(Errc::corrupt, "seSparse volatile header: magic {:#x}, expected {:#x}",
                header.magic.get(), kVolatileMagic);
  }
  if (header.replay_journal != 0) {
    return fail(Errc::busy,
                "seSparse volatile header: the image is unclean, its journal waits to be "
                "replayed; open and close it in its hypervisor first");
  }
  if (!all_zero(header.padding)) {
    return fail(Errc::unsupported, "seSparse volatile header: reserved fields are not zero");
  }
  return header;
}

ConstHeader header_for(uint64_t bytes) {
  CHECK(bytes > 0 && bytes <= kDiskBytesMax && aligned(bytes, kSectorBytes));
  const uint64_t tables = (bytes + kTableReach - 1) / kTableReach;
  const uint64_t grains = (bytes + kGrainBytes - 1) / kGrainBytes;
  ConstHeader header;
  header.capacity = bytes / kSectorBytes;
  header.volatile_header = {1, 1};
  header.journal_header = {2, 2};
  uint64_t end = kRegionUnit;
  const auto next = [&end](uint64_t sectors) {
    const uint64_t at = end;
    const uint64_t size = round_up(sectors, kRegionUnit);
    end += size;
    return Region{at, size};
  };
  header.journal = next(kRegionOfJournal);
  header.grain_directory = next(sectors_for(tables * 8));
  header.grain_tables = next(tables * kTableSectors);
  header.free_bitmap = next(sectors_for((grains + 7) / 8));
  header.back_map = next(tables * kTableSectors);
  header.grains = {end, grains * kGrainSectors};
  return header;
}

Result<Entry> decode_entry(uint64_t raw, uint64_t index, uint64_t grains) {
  if (raw == 0) return Entry{};
  const uint64_t type = raw >> 60;
  if (type == 1 || type == 2) return Entry{static_cast<EntryType>(type), 0};
  if (type != 3) {
    return fail(Errc::corrupt, "seSparse grain {}: its entry is {:016x}, which is impossible",
                index, raw);
  }
  const uint64_t grain = ((raw >> 48) & 0xfff) | ((raw & 0xffffffffffff) << 12);
  if (grain >= grains) {
    return fail(Errc::corrupt,
                "seSparse grain {}: its data is in place {} of an extent that has {}; the file may "
                "be cut short",
                index, grain, grains);
  }
  return Entry{EntryType::data, grain};
}

Result<std::optional<uint64_t>> decode_directory_entry(uint64_t raw, uint64_t index,
                                                       uint64_t tables) {
  if (raw == 0) return std::optional<uint64_t>();
  const uint64_t table = raw & 0xffffffff;
  if (encode_directory_entry(table) != raw) {
    return fail(Errc::corrupt, "seSparse grain directory: entry {} is {:016x}, which is impossible",
                index, raw);
  }
  if (table >= tables) {
    return fail(Errc::corrupt, "seSparse grain directory: entry {} names table {} of {}", index,
                table, tables);
  }
  return std::optional<uint64_t>(table);
}

Result<Descriptor> decode_descriptor(std::string_view text) {
  Descriptor descriptor;
  bool is_sesparse = false;
  // What is wrong matters only once it is known that this is a descriptor of this kind.
  Result<void> wrong;
  const auto note = [&wrong](const Result<void>& result) {
    if (wrong) wrong = result;
  };
  const bool is_text =
      text.size() <= kDescriptorBytesMax && text.find('\0') == std::string_view::npos;
  if (!is_text) text = {};
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = trimmed(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
    if (line.empty() || line.front() == '#') continue;
    const size_t equals = line.find('=');
    std::string_view rest = line;
    const std::string_view first = word_of(rest);
    if (is_access(first)) {
      note(take_extent(first, rest, descriptor));
    } else if (equals != std::string_view::npos) {
      note(take_pair(trimmed(line.substr(0, equals)), unquoted(trimmed(line.substr(equals + 1))),
                     descriptor, is_sesparse));
    }
  }
  if (!is_sesparse) {
    return fail(Errc::not_found, "no seSparse descriptor: it has no createType=\"seSparse\"");
  }
  TRY(wrong);
  if (descriptor.extent.empty()) {
    return fail(Errc::corrupt, "seSparse descriptor: it names no extent");
  }
  return descriptor;
}

bool can_be_named(std::string_view extent) {
  constexpr size_t kNameBytesMax = 500;
  return !extent.empty() && extent.size() <= kNameBytesMax &&
         std::ranges::none_of(extent, [](char c) {
           return c == '"' || c == ':' || c == '/' || static_cast<unsigned char>(c) < 0x20;
         });
}

std::string encode(const Descriptor& descriptor) {
  CHECK(can_be_named(descriptor.extent) && !descriptor.has_parent() && descriptor.sectors > 0);
  constexpr uint64_t kHeads = 255;
  constexpr uint64_t kTrackSectors = 63;
  std::string text = fmt::format(
      "# Disk DescriptorFile\n"
      "version=1\n"
      "CID={:08x}\n"
      "parentCID={:08x}\n"
      "createType=\"seSparse\"\n"
      "\n"
      "# Extent description\n"
      "RW {} SESPARSE \"{}\"\n"
      "\n"
      "# The Disk Data Base\n"
      "#DDB\n"
      "ddb.adapterType = \"lsilogic\"\n"
      "ddb.geometry.cylinders = \"{}\"\n"
      "ddb.geometry.heads = \"{}\"\n"
      "ddb.geometry.sectors = \"{}\"\n",
      descriptor.content_id, kNoParent, descriptor.sectors, descriptor.extent,
      descriptor.sectors / (kHeads * kTrackSectors), kHeads, kTrackSectors);
  CHECK(decode_descriptor(text), "a descriptor that we could not read back");
  return text;
}

}  // namespace firn::format::sesparse
