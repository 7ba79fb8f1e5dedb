// SPDX-License-Identifier: Apache-2.0
// Notes on the design
//
// The check believes the maps and the catalog, and recounts everything else from them: which pages
// are reachable and how often, which grains are owned and how often. Then it compares with the
// page-info entries, the block bitmaps and the layer counters. Maps stand still meanwhile: writers
// wait at the gate.
#include <bit>

#include "disk/disks_impl.h"

namespace firn::disk {

using format::BlockEntry;
using format::BlockState;
using format::GrainEntry;
using format::IndexEntry;
using format::kFanout;
using format::LayerRecord;
using store::PageKind;

namespace {

constexpr size_t kFindingsMax = 1000;

class Checker {
 public:
  Checker(store::Pool& pool, Catalog& catalog, CheckReport& report)
      : pool_(pool),
        catalog_(catalog),
        report_(report),
        owned_(pool.blocks().blocks() * kBlockGrains / 64),
        family_(pool.blocks().blocks()),
        page_seen_(pool.pages().groups() * format::kGroupPages) {}

  Result<void> walk_everything(Io& io);
  Result<void> compare_blocks(Io& io, bool repair);
  Result<void> compare_pages(Io& io, bool repair);

 private:
  template <class... Args>
  void found(fmt::format_string<Args...> form, Args&&... args) {
    if (report_.findings.size() < kFindingsMax) {
      report_.findings.push_back(fmt::format(form, std::forward<Args>(args)...));
    }
  }
  bool see_page(PageNo page, std::string_view whose);  // False: not for the first time.
  Result<void> walk_layer(Io& io, const LayerRecord& layer);
  Result<void> walk_changes(Io& io, const format::Uuid& disk, RecordNo record);
  Result<void> walk_tree(Io& io, const LayerRecord& layer, PageNo page, uint8_t level, bool own);
  void count_leaf(const LayerRecord& layer, PageNo page, const PageRef& leaf);
  Result<void> compare_block_page(Io& io, uint64_t index, const PageRef& page, bool repair);

  store::Pool& pool_;
  Catalog& catalog_;
  CheckReport& report_;
  std::vector<uint64_t> owned_;   // A bit for each grain of the pool.
  std::vector<uint32_t> family_;  // Of the owners of a block's grains; 0 none.
  std::vector<bool> page_seen_;
  uint64_t layer_grains_ = 0;
  uint64_t layer_pages_ = 0;
  // What layers say that they own, and what was counted; by the layer that a consolidation, which
  // may be half done, ends in (N6).
  struct Owned {
    uint64_t said_grains = 0, said_pages = 0, grains = 0, pages = 0;
    bool unknown = false;  // Pages were corrupt: counts that cannot be known.
  };
  uint32_t heir_of(uint32_t layer) const;
  void compare_counts();
  std::map<uint32_t, Owned> counts_;
};

bool Checker::see_page(PageNo page, std::string_view whose) {
  ++report_.pages;
  if (page >= page_seen_.size()) return true;  // Reading it says what is wrong.
  if (page_seen_[page]) {
    ++report_.double_owned;
    found("metadata page {} has two owners, one is {}", page, whose);
    return false;
  }
  page_seen_[page] = true;
  return true;
}

void Checker::count_leaf(const LayerRecord& layer, PageNo page, const PageRef& leaf) {
  for (size_t i = 0; i < kFanout; ++i) {
    const GrainEntry entry = format::grain_entry_of(leaf.word(i));
    if (!entry.is_data() || !entry.own) continue;
    ++report_.grains;
    ++layer_grains_;
    uint64_t& word = owned_[entry.grain / 64];
    const uint64_t bit = uint64_t{1} << (entry.grain % 64);
    if ((word & bit) != 0) {
      ++report_.double_owned;
      found("grain {} has two owners, one is layer {} in page {}", entry.grain, layer.layer.get(),
            page);
    }
    word |= bit;
    uint32_t& family = family_[entry.grain / kBlockGrains];
    if (family != 0 && family != layer.family) {
      found("storage block {} holds grains of families {} and {}", entry.grain / kBlockGrains,
            family, layer.family.get());
    }
    family = layer.family;
  }
}

// Only own pages are this layer's; inherited ones are counted where they are own (M1).
Result<void> Checker::walk_tree(Io& io, const LayerRecord& layer, PageNo page, uint8_t level,
                                bool own) {
  if (page == format::kNoPage || !own) return ok;
  if (!see_page(page, fmt::format("layer {}", layer.layer.get()))) return ok;  // Nor what is below.
  ++layer_pages_;
  const auto node =
      pool_.pages().get(io, page, level == 0 ? PageKind::map : PageKind::index, level);
  if (!node) {
    if (node.error().code != Errc::corrupt) return node.error();
    ++report_.corrupt_pages;
    found("layer {}: {}", layer.layer.get(), text_of(node.error()));
    return ok;
  }
  if (level == 0) {
    count_leaf(layer, page, *node);
    return ok;
  }
  for (size_t i = 0; i < kFanout; ++i) {
    const IndexEntry child = TRY(format::decode_index_entry(node->word(i)));
    TRY(walk_tree(io, layer, child.page, static_cast<uint8_t>(level - 1), child.own));
  }
  return ok;
}

Result<void> Checker::walk_layer(Io& io, const LayerRecord& layer) {
  ++report_.layers;
  layer_grains_ = 0;
  layer_pages_ = 0;
  const uint64_t corrupt_before = report_.corrupt_pages;
  const IndexEntry root = TRY(format::decode_index_entry(layer.root));
  TRY(walk_tree(io, layer, root.page, static_cast<uint8_t>(layer.root_level), root.own));
  Owned& owned = counts_[heir_of(layer.layer)];
  owned.said_grains += layer.own_grains;
  owned.said_pages += layer.own_pages;
  owned.grains += layer_grains_;
  owned.pages += layer_pages_;
  owned.unknown = owned.unknown || report_.corrupt_pages != corrupt_before;
  return ok;
}

// A frozen layer without a name is on its way into the only one that stands on it.
uint32_t Checker::heir_of(uint32_t layer) const {
  while (true) {
    const auto& children = catalog_.children(layer);
    const auto state = static_cast<format::LayerState>(catalog_.layers().at(layer).layer.state);
    if (state != format::LayerState::frozen || catalog_.name_of(layer) != nullptr ||
        children.size() != 1) {
      return layer;
    }
    layer = children[0];
  }
}

void Checker::compare_counts() {
  for (const auto& [layer, owned] : counts_) {
    if (owned.unknown) continue;
    if (owned.said_grains == owned.grains && owned.said_pages == owned.pages) continue;
    found("layer {} says that it owns {} grains and {} pages, it owns {} and {}", layer,
          owned.said_grains, owned.said_pages, owned.grains, owned.pages);
  }
}

Result<void> Checker::walk_everything(Io& io) {
  see_page(format::kRootPage, "the pool root");
  TRY(pool_.blocks().table().for_each_page(
      io, [this](PageNo page) { see_page(page, "the block table"); }));
  TRY(catalog_.tree().for_each_page(io, [this](PageNo page) { see_page(page, "the catalog"); }));
  report_.disks = catalog_.names().size();
  for (const auto& [disk, names] : catalog_.all_snapshots()) report_.snapshots += names.size();
  for (const auto& [id, seen] : catalog_.layers()) {
    const Catalog::Slot slot = TRY(catalog_.pin(io, seen.record));
    TRY(walk_layer(
        io, TRY(format::decode_layer(slot.page.view().subspan(slot.at, format::kRecordBytes)))));
  }
  compare_counts();
  for (const auto& [disk, record] : catalog_.changes()) TRY(walk_changes(io, disk, record));
  return ok;
}

Result<void> Checker::walk_changes(Io& io, const format::Uuid& disk, RecordNo record) {
  const Catalog::Slot slot = TRY(catalog_.pin(io, record));
  const std::string whose = "the change log of disk " + format::uuid_text(disk);
  const Result<void> walked =
      ChangeTracker::for_each_page(io, pool_.pages(), slot.page, slot.at,
                                   [&](PageNo page) { see_page(page, whose); });
  if (walked || walked.error().code != Errc::corrupt) return walked;
  ++report_.corrupt_pages;
  found("{}: {}", whose, text_of(walked.error()));
  return ok;
}

Result<void> Checker::compare_block_page(Io& io, uint64_t index, const PageRef& page, bool repair) {
  for (uint64_t i = 0; i < format::kBlocksPerPage; ++i) {
    const uint64_t block = index * format::kBlocksPerPage + i;
    if (block >= family_.size()) break;
    const auto entry = firn::load<BlockEntry>(page.view().subspan(i * sizeof(BlockEntry)));
    const bool allocated = static_cast<BlockState>(entry.state) == BlockState::allocated;
    if (allocated && entry.used == 0) {
      ++report_.leaked_blocks;
      found("storage block {} is allocated to family {} and holds nothing", block,
            entry.family.get());
    }
    if (allocated && family_[block] != 0 && entry.family != family_[block]) {
      found("storage block {} belongs to family {}, its grains to {}", block, entry.family.get(),
            family_[block]);
    }
    for (uint64_t grain = 0; grain < kBlockGrains; ++grain) {
      const bool marked = (entry.bitmap[grain / 64] >> (grain % 64) & 1) != 0;
      const uint64_t no = block * kBlockGrains + grain;
      const bool is_owned = (owned_[no / 64] >> (no % 64) & 1) != 0;
      owned_[no / 64] &= ~(uint64_t{1} << (no % 64));
      if (marked == is_owned) continue;
      if (is_owned) {
        ++report_.unmarked;
        found("grain {} is owned, but storage block {} has it free", no, block);
        continue;
      }
      ++report_.leaked_grains;
      found("grain {} of storage block {} is marked used, nobody owns it", no, block);
      if (!repair) continue;
      const auto admission = TRY(pool_.pages().admit(io));
      pool_.blocks().mark_free(page, no);
      ++report_.repaired;
    }
  }
  return ok;
}

Result<void> Checker::compare_blocks(Io& io, bool repair) {
  TRY(pool_.blocks().table().for_each(io, [&](Io& world, uint64_t index, const PageRef& page) {
    return compare_block_page(world, index, page, repair);
  }));
  // What is left was owned in blocks that the table has never heard of.
  for (size_t i = 0; i < owned_.size(); ++i) {
    if (owned_[i] == 0) continue;
    report_.unmarked += static_cast<uint64_t>(std::popcount(owned_[i]));
    found("storage block {} holds grains, but was never allocated", i * 64 / kBlockGrains);
  }
  return ok;
}

Result<void> Checker::compare_pages(Io& io, bool repair) {
  for (PageNo page = 0; page < page_seen_.size(); ++page) {
    if (format::is_info_page(page)) continue;
    const auto kind = static_cast<PageKind>(pool_.pages().info(page).kind);
    const bool used = kind != PageKind::free;
    if (used == page_seen_[page]) continue;
    if (!used) {
      ++report_.unmarked;
      found("metadata page {} is in use, but marked free", page);
      continue;
    }
    ++report_.leaked_pages;
    found("metadata page {} of kind {} is marked used, nobody refers to it", page,
          static_cast<unsigned>(kind));
    if (!repair) continue;
    const auto admission = TRY(pool_.pages().admit(io));
    pool_.pages().free(page, kind);
    ++report_.repaired;
  }
  return ok;
}

}  // namespace

Result<CheckReport> DisksImpl::check(Io& io, bool repair) {
  const auto only = changing_.lock(io);
  if (repair) TRY(pool_.repairable());
  const auto closed = gate_.close(io);
  const auto no_formatting = pool_.blocks().formatting().lock(io);
  CheckReport report;
  Checker checker(pool_, catalog_, report);
  TRY(checker.walk_everything(io));
  // With corrupt pages nobody knows what they own: then nothing is a leak, and nothing is given
  // back.
  const bool safe = report.corrupt_pages == 0 && report.double_owned == 0;
  if (report.corrupt_pages == 0) {
    TRY(checker.compare_blocks(io, repair && safe));
    TRY(checker.compare_pages(io, repair && safe));
  }
  if (report.repaired > 0) TRY(pool_.flush(io));
  return report;
}

}  // namespace firn::disk
