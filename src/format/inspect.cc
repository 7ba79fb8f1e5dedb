// SPDX-License-Identifier: Apache-2.0
#include "format/inspect.h"

#include <algorithm>
#include <vector>

#include "format/block_table.h"
#include "format/catalog.h"
#include "format/changes.h"
#include "format/data_label.h"
#include "format/micro_journal.h"
#include "format/superblock.h"

namespace firn::format {
namespace {

struct Known {
  Artifact artifact;
  std::string_view name;
  size_t bytes;
};
constexpr Known kArtifacts[] = {
    {Artifact::superblock, "superblock", sizeof(Superblock)},
    {Artifact::info_page, "info", kPageBytes},
    {Artifact::pool_root, "pool-root", kPageBytes},
    {Artifact::index_page, "index", kPageBytes},
    {Artifact::block_page, "blocks", kPageBytes},
    {Artifact::catalog_page, "catalog", kPageBytes},
    {Artifact::map_page, "map", kPageBytes},
    {Artifact::journal_slot, "journal-slot", sizeof(SlotHeader)},
    {Artifact::data_label, "data-label", sizeof(DataLabel)},
    {Artifact::change_log_page, "change-log", kPageBytes},
    {Artifact::intent_page, "change-intents", kPageBytes},
};
const Known& known(Artifact artifact) { return kArtifacts[static_cast<size_t>(artifact) - 1]; }

constexpr std::string_view kPageKinds[] = {"free",    "pool root", "index",      "block table",
                                           "catalog", "map",       "change log", "change intents"};
constexpr std::string_view kBlockStates[] = {"raw", "ready", "allocated", "bad"};
constexpr std::string_view kLayerStates[] = {"?", "live", "frozen", "dropping"};
constexpr std::string_view kMedia[] = {"?", "file", "persistent memory"};

template <size_t N>
std::string spelled(const std::string_view (&names)[N], std::byte value) {
  const auto number = static_cast<size_t>(value);
  return number < N ? std::string(names[number]) : fmt::format("unknown ({})", number);
}

std::string printable(std::string_view text) {
  std::string safe;
  for (const char c : text) {
    if (c >= ' ' && c <= '~' && c != '\\') {
      safe.push_back(c);
    } else {
      safe += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
    }
  }
  return safe;
}

// The text under construction.
class Paper {
 public:
  template <class... Args>
  void line(fmt::format_string<Args...> form, Args&&... args) {
    text_ += fmt::format(form, std::forward<Args>(args)...);
    text_.push_back('\n');
  }
  template <class... Args>
  void field(std::string_view name, fmt::format_string<Args...> form, Args&&... args) {
    line("  {:<16} {}", name, fmt::format(form, std::forward<Args>(args)...));
  }
  template <class T>
  void verdict(std::string_view what, const Result<T>& result, std::string_view remark = {}) {
    if (result) {
      line("{}: good{}", what, remark);
    } else {
      line("{}: BAD ({}): {}", what, name_of(result.error().code),
           printable(text_of(result.error())));
    }
  }
  std::string take() { return std::move(text_); }

 private:
  std::string text_;
};

void inspect_superblock(Paper& paper, View bytes, const InspectContext& context) {
  const auto copy = static_cast<uint16_t>(context.place);
  paper.verdict(fmt::format("superblock copy {}", copy), decode_superblock(bytes, copy));
  const auto superblock = load<Superblock>(bytes);
  paper.field("version", "{}", superblock.version.get());
  paper.field("copy", "{}", superblock.slot.get());
  paper.field("incompat", "{:#x}", superblock.incompat.get());
  paper.field("ro_compat", "{:#x}", superblock.ro_compat.get());
  paper.field("compat", "{:#x}", superblock.compat.get());
  paper.field("autoclear", "{:#x}", superblock.autoclear.get());
  paper.field("uuid", "{}", uuid_text(superblock.uuid));
  paper.field("sequence", "{}", superblock.sequence.get());
  paper.field("epoch", "{}", superblock.epoch.get());
  paper.field("created", "{} ns", superblock.created_ns.get());
  paper.field("journal", "{} slots of {} bytes on {}", superblock.journal_slots.get(),
              superblock.journal_slot_bytes.get(), spelled(kMedia, superblock.journal_medium));
  paper.field(
      "shifts", "block {}, grain {}, page {}", static_cast<unsigned>(superblock.block_shift),
      static_cast<unsigned>(superblock.grain_shift), static_cast<unsigned>(superblock.page_shift));
  paper.field("reserved", "{}", all_zero(superblock.reserved) ? "zero" : "in use");
}

void inspect_label(Paper& paper, View bytes, const InspectContext& context) {
  auto decoded = decode_data_label(bytes);
  const auto label = load<DataLabel>(bytes);
  const bool foreign = decoded && context.uuid && *context.uuid != label.uuid;
  paper.verdict("data label", decoded, foreign ? ", but of another pool" : "");
  paper.field("version", "{}", label.version.get());
  paper.field("uuid", "{}", uuid_text(label.uuid));
  paper.field("blocks", "{} at creation", label.blocks.get());
  paper.field("created", "{} ns", label.created_ns.get());
  paper.field("reserved", "{}", all_zero(label.reserved) ? "zero" : "in use");
}

void inspect_info(Paper& paper, View bytes, const InspectContext& context) {
  const auto info = load<InfoPage>(bytes);
  if (context.uuid) {
    paper.verdict(fmt::format("page-info page {}", context.place),
                  check_info_page(*context.uuid, context.place, bytes));
  } else {
    paper.line("page-info page: not verified, the pool's uuid is not known");
  }
  paper.field("magic", "{:08x}", info.magic.get());
  paper.field("crc", "{:08x}", info.crc.get());
  paper.field("page", "{}", info.page.get());
  size_t used = 0;
  for (size_t i = 0; i < kGroupEntries; ++i) {
    const PageInfo& entry = info.entries[i];
    if (all_zero(view_of(entry))) continue;
    ++used;
    paper.field(fmt::format("entry {}", i), "{}, level {}, family {}, crc {:08x}{}",
                spelled(kPageKinds, entry.kind), static_cast<unsigned>(entry.level),
                entry.family.get(), entry.crc.get(),
                entry.flags != 0 || entry.reserved != 0 ? ", reserved bits" : "");
  }
  paper.field("free", "{} of {}", kGroupEntries - used, kGroupEntries);
}

void inspect_tree(Paper& paper, std::string_view name, const TreeRoot& tree) {
  if (tree.page == kNoPage) {
    paper.field(name, "empty");
  } else {
    paper.field(name, "page {}, level {}", tree.page.get(), static_cast<unsigned>(tree.level));
  }
}

void inspect_pool_root(Paper& paper, View bytes) {
  paper.verdict("pool root", decode_pool_root(bytes));
  const auto root = load<PoolRoot>(bytes);
  paper.field("blocks", "{}", root.blocks.get());
  paper.field("groups", "{}", root.groups.get());
  inspect_tree(paper, "block table", root.tree(Tree::block_table));
  inspect_tree(paper, "catalog", root.tree(Tree::catalog));
  for (size_t i = kTreesKnown; i < kTrees; ++i) {
    if (!all_zero(view_of(root.trees[i]))) {
      inspect_tree(paper, fmt::format("tree {}", i), root.trees[i]);
    }
  }
  paper.field("catalog records", "{}", root.catalog_records.get());
  paper.field("next family", "{}", root.next_family.get());
  paper.field("next layer", "{}", root.next_layer.get());
}

void inspect_index(Paper& paper, View bytes) {
  Result<void> verdict;
  for (size_t i = 0; i < kFanout && verdict; ++i) {
    const auto entry = decode_index_entry(load<le64>(bytes.subspan(i * 8)));
    if (!entry) verdict = entry.error();
  }
  paper.verdict("index page", verdict);
  for (size_t i = 0; i < kFanout; ++i) {
    const uint64_t raw = load<le64>(bytes.subspan(i * 8));
    if (raw == 0) continue;
    const auto entry = decode_index_entry(raw);
    if (entry) {
      paper.field(fmt::format("entry {}", i), "page {}, {}", entry->page,
                  entry->own ? "own" : "inherited");
    } else {
      paper.field(fmt::format("entry {}", i), "{:016x}, impossible", raw);
    }
  }
}

void inspect_blocks(Paper& paper, View bytes) {
  paper.verdict("block table page", check_block_page(bytes));
  for (size_t i = 0; i < kBlocksPerPage; ++i) {
    const auto entry = load<BlockEntry>(bytes.subspan(i * sizeof(BlockEntry)));
    if (all_zero(view_of(entry))) continue;
    paper.field(fmt::format("block +{}", i),
                "{}, family {}, generation {}, {} used: {:016x} {:016x} {:016x} {:016x}",
                spelled(kBlockStates, entry.state), entry.family.get(), entry.generation.get(),
                entry.used.get(), entry.bitmap[0].get(), entry.bitmap[1].get(),
                entry.bitmap[2].get(), entry.bitmap[3].get());
  }
}

void inspect_name(Paper& paper, const Named& named) {
  paper.field("name", "{}", printable(named.name));
  paper.field("layer", "{}", named.layer);
  paper.field("uuid", "{}", uuid_text(named.uuid));
  if (named.kind == RecordKind::snapshot) paper.field("disk", "{}", uuid_text(named.disk));
  paper.field("created", "{} ns", named.created_ns);
  for (const auto& [key, value] : named.settings) {
    paper.field("setting", "{} = {}", printable(key), printable(value));
  }
  if (!named.unknown.empty()) paper.field("unknown fields", "{} bytes", named.unknown.size());
}

void inspect_layer(Paper& paper, const LayerRecord& layer) {
  paper.field("layer", "{}, {}", layer.layer.get(), spelled(kLayerStates, layer.state));
  paper.field("family", "{}", layer.family.get());
  paper.field("parent", "{}", layer.parent.get());
  paper.field("bytes", "{}", layer.bytes.get());
  const auto root = decode_index_entry(layer.root);
  if (root) {
    paper.field("root", "page {}, {}, level {}", root->page, root->own ? "own" : "inherited",
                static_cast<unsigned>(layer.root_level));
  }
  paper.field("own", "{} grains, {} pages", layer.own_grains.get(), layer.own_pages.get());
  paper.field("created", "{} ns", layer.created_ns.get());
  if (layer.open_block != 0) paper.field("open block", "{}", layer.open_block - 1);
  if (layer.tail_bytes != 0) paper.field("unknown fields", "{} bytes", layer.tail_bytes.get());
}

constexpr std::string_view kChangesStates[] = {"?", "clean", "open", "invalid"};

void inspect_changes(Paper& paper, const ChangesRecord& record) {
  paper.field("disk", "{}, {} bytes", uuid_text(record.disk), record.bytes.get());
  paper.field("branch", "{}", uuid_text(record.branch));
  paper.field("state", "{}, blocks of {} bytes", spelled(kChangesStates, record.state),
              uint64_t{1} << static_cast<unsigned>(record.block_shift));
  paper.field("events", "{}, answers from {} on", record.event_counter.get(),
              record.valid_from.get());
  inspect_tree(paper, "log", record.log);
  inspect_tree(paper, "intents", record.intents);
  for (const Growth& one : record.growths) {
    if (one.counter == 0) break;
    paper.field("grown", "from block {} on: {}", one.first_block.get(), one.counter.get());
  }
  if (record.tail_bytes != 0) paper.field("unknown fields", "{} bytes", record.tail_bytes.get());
}

void inspect_application(Paper& paper, const ApplicationRecord& record) {
  paper.field("application", "{}", printable(name_of(record)));
  paper.field("disk", "{}", uuid_text(record.disk));
  paper.field("branch", "{}", uuid_text(record.branch));
  paper.field("began", "event {}, {} ns", record.counter.get(), record.began_ns.get());
  if (record.has_previous == std::byte{1}) paper.field("before", "{}", record.previous.get());
}

void inspect_record(Paper& paper, size_t number, View record) {
  const auto kind = kind_of_record(record);
  const std::string what = fmt::format("record +{}", number);
  if (!kind) {
    paper.verdict(what, kind);
    return;
  }
  switch (*kind) {
    case RecordKind::free:
      return;
    case RecordKind::layer: {
      const auto layer = decode_layer(record);
      paper.verdict(what, layer, " (layer)");
      if (layer) inspect_layer(paper, *layer);
      return;
    }
    case RecordKind::disk:
    case RecordKind::snapshot: {
      const auto named = decode_name(record);
      paper.verdict(what, named, *kind == RecordKind::disk ? " (disk)" : " (snapshot)");
      if (named) inspect_name(paper, *named);
      return;
    }
    case RecordKind::changes: {
      const auto changes = decode_changes(record);
      paper.verdict(what, changes, " (change tracking)");
      if (changes) inspect_changes(paper, *changes);
      return;
    }
    case RecordKind::application: {
      const auto application = decode_application(record);
      paper.verdict(what, application, " (application)");
      if (application) inspect_application(paper, *application);
      return;
    }
  }
}

void inspect_catalog(Paper& paper, View bytes) {
  paper.line("catalog page: {} records", kRecordsPerPage);
  for (size_t i = 0; i < kRecordsPerPage; ++i) {
    inspect_record(paper, i, bytes.subspan(i * kRecordBytes, kRecordBytes));
  }
}

void inspect_map(Paper& paper, View bytes, const InspectContext& context) {
  paper.verdict("map page", check_map_page(bytes, context.grains));
  for (size_t i = 0; i < kFanout; ++i) {
    const uint64_t raw = load<le64>(bytes.subspan(i * 8));
    if (raw == 0) continue;
    const GrainEntry entry = grain_entry_of(raw);
    const std::string_view whose = entry.own ? "own" : "inherited";
    if (encode(entry) == raw && entry.type == GrainType::zero && entry.grain == 0) {
      paper.field(fmt::format("grain +{}", i), "zero, {}", whose);
    } else if (encode(entry) == raw && entry.is_data() && entry.grain < context.grains) {
      paper.field(fmt::format("grain +{}", i), "grain {} (block {} +{}), {}", entry.grain,
                  entry.grain / kBlockGrains, entry.grain % kBlockGrains, whose);
    } else {
      paper.field(fmt::format("grain +{}", i), "{:016x}, impossible", raw);
    }
  }
}

void inspect_change_log(Paper& paper, View bytes) {
  paper.line("change log page: good, any counter is possible");
  const auto counter = [&](size_t i) { return load<le32>(bytes.subspan(i * 4)).get(); };
  for (size_t first = 0; first < kLogEntries;) {
    size_t end = first + 1;
    while (end < kLogEntries && counter(end) == counter(first)) ++end;
    if (counter(first) != 0) {
      paper.field(fmt::format("blocks +{}", first), "to +{}: event {}", end - 1, counter(first));
    }
    first = end;
  }
}

void inspect_intents(Paper& paper, View bytes) {
  paper.line("change intent page: good, any bit is possible");
  const auto bit = [&](size_t i) {
    return (load<le64>(bytes.subspan(i / 64 * 8)) >> i % 64 & 1) != 0;
  };
  for (size_t first = 0; first < kIntentBits;) {
    size_t end = first + 1;
    while (end < kIntentBits && bit(end) == bit(first)) ++end;
    if (bit(first)) paper.field(fmt::format("regions +{}", first), "to +{}", end - 1);
    first = end;
  }
}

class RecordLines final : public RecordSink {
 public:
  explicit RecordLines(Paper& paper) : paper_(paper) {}
  Result<void> page(PageNo page, uint32_t crc, bool fresh) override {
    paper_.field("page", "{}, crc {:08x}{}", page, crc, fresh ? ", fresh" : "");
    return ok;
  }
  Result<void> words(size_t first, View words) override {
    paper_.field("", "words {} to {}", first, first + words.size() / 8 - 1);
    return ok;
  }

 private:
  Paper& paper_;
};

void inspect_slot(Paper& paper, View bytes, const InspectContext& context) {
  auto header = load<SlotHeader>(bytes);
  const uint64_t epoch = header.epoch;
  SlotState state = SlotState::nothing;
  if (context.uuid) {
    state = read_slot(*context.uuid, epoch, bytes, header);
    paper.line("journal slot: {}", state == SlotState::valid ? "good"
                                   : state == SlotState::too_new
                                       ? "BAD (too_new)"
                                       : "nothing: torn, empty or foreign");
  } else {
    paper.line("journal slot: not verified, the pool's uuid is not known");
  }
  paper.field("version", "{}", header.version.get());
  paper.field("commit id", "{}", header.commit_id.get());
  paper.field("epoch", "{}", epoch);
  paper.field("part", "{} of {}", header.part.get(), header.parts.get());
  paper.field("needs from", "{}{}", header.oldest_needed.get(),
              (header.flags & kSlotDense) != 0 ? ", dense" : "");
  paper.field("payload", "{} bytes, crc {:08x}", header.payload_bytes.get(),
              header.payload_crc.get());
  if (state != SlotState::valid) return;
  if (header.parts != 1) {
    paper.field("records", "run over the whole chain");
    return;
  }
  RecordLines lines(paper);
  const auto walked = walk_records(bytes.subspan(sizeof(SlotHeader), header.payload_bytes), lines);
  if (!walked) paper.field("records", "BAD: {}", text_of(walked.error()));
}

}  // namespace

std::string_view name_of(Artifact artifact) { return known(artifact).name; }
size_t size_of(Artifact artifact) { return known(artifact).bytes; }

std::optional<Artifact> artifact_named(std::string_view name) {
  for (const Known& each : kArtifacts) {
    if (each.name == name) return each.artifact;
  }
  return std::nullopt;
}

std::optional<Artifact> recognise(View bytes) {
  if (bytes.size() >= 8 && std::ranges::equal(bytes.first(8), view_of(kSuperblockMagic))) {
    return Artifact::superblock;
  }
  if (bytes.size() >= 8 && std::ranges::equal(bytes.first(8), view_of(kDataLabelMagic))) {
    return Artifact::data_label;
  }
  if (bytes.size() >= 8 && load<le64>(bytes) == kPoolRootMagic) return Artifact::pool_root;
  if (bytes.size() >= 4 && load<le32>(bytes) == kInfoMagic) return Artifact::info_page;
  if (bytes.size() >= 4 && load<le32>(bytes) == kSlotMagic) return Artifact::journal_slot;
  return std::nullopt;
}

std::string inspect(Artifact artifact, View bytes, const InspectContext& context) {
  Paper paper;
  const size_t whole = size_of(artifact);
  std::vector<std::byte> padded;
  if (bytes.size() < whole) {
    paper.line("{} bytes were given, the {} up to {} count as zeroes", bytes.size(),
               whole - bytes.size(), whole);
    padded.assign(bytes.begin(), bytes.end());
    padded.resize(whole);
    bytes = padded;
  }
  switch (artifact) {
    case Artifact::superblock:
      inspect_superblock(paper, bytes, context);
      break;
    case Artifact::info_page:
      inspect_info(paper, bytes.first(whole), context);
      break;
    case Artifact::pool_root:
      inspect_pool_root(paper, bytes.first(whole));
      break;
    case Artifact::index_page:
      inspect_index(paper, bytes.first(whole));
      break;
    case Artifact::block_page:
      inspect_blocks(paper, bytes.first(whole));
      break;
    case Artifact::catalog_page:
      inspect_catalog(paper, bytes.first(whole));
      break;
    case Artifact::map_page:
      inspect_map(paper, bytes.first(whole), context);
      break;
    case Artifact::journal_slot:
      inspect_slot(paper, bytes, context);
      break;
    case Artifact::data_label:
      inspect_label(paper, bytes.first(whole), context);
      break;
    case Artifact::change_log_page:
      inspect_change_log(paper, bytes.first(whole));
      break;
    case Artifact::intent_page:
      inspect_intents(paper, bytes.first(whole));
      break;
  }
  return paper.take();
}

}  // namespace firn::format
