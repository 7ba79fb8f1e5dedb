// SPDX-License-Identifier: Apache-2.0
#include "disk/catalog.h"

namespace firn::disk {

using format::kRecordBytes;
using format::kRecordsPerPage;
using format::PoolRoot;
using format::RecordKind;
using store::PageKind;

Catalog::Catalog(store::Pool& pool)
    : pool_(pool),
      root_(pool.root()),
      tree_(pool.pages(), pool.root(), offset_of(format::Tree::catalog), PageKind::catalog) {}

Result<void> Catalog::add_layer(RecordNo no, View record) {
  const auto layer = TRY(format::decode_layer(record));
  const PoolRoot root = load_root();
  if (layer.layer >= root.next_layer || layer.family >= root.next_family) {
    return fail(Errc::corrupt, "catalog: layer {} of family {} has an id that was never given out",
                layer.layer.get(), layer.family.get());
  }
  if (!layers_.emplace(layer.layer.get(), LayerSeen{no, layer}).second) {
    return fail(Errc::corrupt, "catalog: layer {} is there twice", layer.layer.get());
  }
  return ok;
}

Result<void> Catalog::add_disk(RecordNo no, View record) {
  auto named = TRY(format::decode_name(record));
  const std::string name = named.name;
  if (!names_.emplace(name, NameSeen{no, std::move(named)}).second) {
    return fail(Errc::corrupt, "catalog: disk '{}' is there twice", name);
  }
  return ok;
}

Result<void> Catalog::read_page(uint64_t index, const PageRef& page) {
  for (uint64_t i = 0; i < kRecordsPerPage; ++i) {
    const RecordNo no = index * kRecordsPerPage + i;
    if (no >= records_) break;
    const View record = page.view().subspan(i * kRecordBytes, kRecordBytes);
    switch (TRY(format::kind_of_record(record))) {
      case RecordKind::free:
        free_.push_back(no);
        break;
      case RecordKind::layer:
        TRY(add_layer(no, record));
        break;
      case RecordKind::disk:
        TRY(add_disk(no, record));
        break;
      case RecordKind::snapshot:
        return fail(Errc::too_new, "catalog: '{}' is a snapshot, unknown to this version",
                    TRY(format::decode_name(record)).name);
      case RecordKind::changes:
      case RecordKind::application:
        break;
    }
  }
  return ok;
}

Result<void> Catalog::load(Io& io) {
  records_ = load_root().catalog_records;
  TRY(tree_.for_each(
      io, [this](Io&, uint64_t index, const PageRef& page) { return read_page(index, page); }));
  std::map<uint32_t, std::string_view> disks;
  for (const auto& [name, seen] : names_) {
    if (!layers_.contains(seen.named.layer)) {
      return fail(Errc::corrupt, "catalog: disk '{}' has layer {}, which is not there", name,
                  seen.named.layer);
    }
    const auto [other, alone] = disks.emplace(seen.named.layer, name);
    if (!alone) {
      return fail(Errc::corrupt, "catalog: disks '{}' and '{}' both have layer {}", other->second,
                  name, seen.named.layer);
    }
  }
  return ok;
}

format::PoolRoot Catalog::load_root() const { return firn::load<PoolRoot>(root_.view()); }

Result<Catalog::Slot> Catalog::pin(Io& io, RecordNo record) {
  PageRef page = TRY(tree_.make_leaf(io, record / kRecordsPerPage));
  return Slot{record, std::move(page), record % kRecordsPerPage * kRecordBytes};
}

Result<Catalog::Slot> Catalog::reserve(Io& io) {
  RecordNo record = 0;
  if (free_.empty()) {
    record = records_++;
    pool_.pages().set_word(root_, offsetof(PoolRoot, catalog_records) / 8, records_);
  } else {
    record = free_.back();
    free_.pop_back();
  }
  Result<Slot> slot = pin(io, record);
  if (!slot) free_.push_back(record);
  return slot;
}

void Catalog::abandon(const Slot& slot) { free_.push_back(slot.record); }

void Catalog::clear(const Slot& slot) {
  static constexpr std::array<std::byte, kRecordBytes> kNothing{};
  pool_.pages().set_bytes(slot.page, slot.at, kNothing);
  free_.push_back(slot.record);
}

Result<Catalog::FreshIds> Catalog::take_ids() {
  const PoolRoot root = load_root();
  if (root.next_family >= format::kFamiliesReserved || root.next_layer == UINT32_MAX) {
    return fail(Errc::no_space, "pool '{}' has given out all its ids: {} families, {} layers",
                pool_.directory(), root.next_family - 1, root.next_layer - 1);
  }
  PoolRoot next = root;
  next.next_family = root.next_family + 1;
  next.next_layer = root.next_layer + 1;
  const size_t at = offsetof(PoolRoot, next_family);
  pool_.pages().set_bytes(root_, at, view_of(next).subspan(at, 8));
  return FreshIds{root.next_family, root.next_layer};
}

}  // namespace firn::disk
