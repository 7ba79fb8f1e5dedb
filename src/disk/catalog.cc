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

Result<void> Catalog::read_page(uint64_t index, const PageRef& page) {
  for (uint64_t i = 0; i < kRecordsPerPage; ++i) {
    const RecordNo no = index * kRecordsPerPage + i;
    if (no >= records_) break;
    const View record = page.view().subspan(i * kRecordBytes, kRecordBytes);
    switch (TRY(format::kind_of_record(record))) {
      case RecordKind::free:
        free_.push_back(no);
        break;
      case RecordKind::layer: {
        const auto layer = TRY(format::decode_layer(record));
        layers_[layer.layer] = {no, layer};
        break;
      }
      case RecordKind::disk:
      case RecordKind::snapshot: {
        auto named = TRY(format::decode_name(record));
        std::string name = named.name;
        names_[std::move(name)] = {no, std::move(named)};
        break;
      }
    }
  }
  return ok;
}

Result<void> Catalog::load(Io& io) {
  records_ = load_root().catalog_records;
  TRY(tree_.for_each(
      io, [this](Io&, uint64_t index, const PageRef& page) { return read_page(index, page); }));
  for (const auto& [name, seen] : names_) {
    if (!layers_.contains(seen.named.layer)) {
      return fail(Errc::corrupt, "catalog: disk '{}' has layer {}, which is not there", name,
                  seen.named.layer);
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

Catalog::FreshIds Catalog::take_ids() {
  const PoolRoot root = load_root();
  PoolRoot next = root;
  next.next_family = root.next_family + 1;
  next.next_layer = root.next_layer + 1;
  const size_t at = offsetof(PoolRoot, next_family);
  pool_.pages().set_bytes(root_, at, view_of(next).subspan(at, 8));
  return {root.next_family, root.next_layer};
}

}  // namespace firn::disk
