// SPDX-License-Identifier: Apache-2.0
// Opening a page store: replay, then the info pages, then the verdict on what was replayed.
#include <algorithm>
#include <map>

#include "base/log.h"
#include "store/pages.h"

namespace firn::store {

using format::InfoPage;
using format::kGroupPages;
using format::PageInfo;

// Applies one transaction's records to pages in memory. The base of a page is what is at home, torn
// or not: every word in which it may be torn is rewritten by a transaction that is still in the
// ring.
class PageStore::ReplaySink final : public format::RecordSink {
 public:
  // `pages`: how many `meta` has. A group is written before the transaction that adds it.
  ReplaySink(PageStore& store, Io& io, uint64_t pages) : store_(store), io_(io), pages_(pages) {}
  Result<void> page(PageNo no, uint32_t crc, bool fresh) override {
    page_ = store_.lookup(no);
    if (page_ == nullptr) {
      if (no >= pages_) {
        return fail(Errc::corrupt, "journal: page {} is beyond the {} of '{}'", no, pages_,
                    store_.meta_.name());
      }
      page_ = &store_.adopt(no);
      page_->oldest_unhomed = 1;
      store_.dirty_.push_back(page_);
      if (!fresh) TRY(io_.read(store_.meta_, no * kPageBytes, page_->content.bytes()));
    }
    if (fresh) std::memset(page_->content.data(), 0, kPageBytes);
    store_.replayed_[no] = crc;
    return ok;
  }
  Result<void> words(size_t first, View words) override {
    std::memcpy(page_->content.data() + first * 8, words.data(), words.size());
    return ok;
  }

 private:
  PageStore& store_;
  Io& io_;
  const uint64_t pages_;
  Page* page_ = nullptr;
};

Result<void> PageStore::replay(Io& io, const std::vector<Replayed>& transactions) {
  ReplaySink sink(*this, io, TRY(io.size(meta_)) / kPageBytes);
  for (const Replayed& transaction : transactions) {
    TRY(format::walk_records(transaction.payload, sink));
  }
  return ok;
}

Result<void> PageStore::load_group(Io& io, uint64_t group) {
  const PageNo no = group * kGroupPages;
  Page* page = lookup(no);
  if (page == nullptr) {
    page = &adopt(no);
    ++counters_.page_reads;
    TRY(io.read(meta_, no * kPageBytes, page->content.bytes()));
  }
  page->resident = true;
  info_pages_[group] = page;
  return format::check_info_page(uuid_, no, page->content.bytes());
}

Result<format::PoolRoot> PageStore::load_info(Io& io) {
  info_pages_.assign(1, nullptr);
  groups_ = 1;
  if (TRY(io.size(meta_)) < kGroupPages * kPageBytes) {
    return fail(Errc::corrupt, "'{}' has {} bytes, less than one page group of 1 MiB", meta_.name(),
                TRY(io.size(meta_)));
  }
  TRY(load_group(io, 0));
  Page* root_page = lookup(format::kRootPage);
  if (root_page == nullptr) {
    root_page = &adopt(format::kRootPage);
    TRY(read_page(io, *root_page, PageKind::pool_root));
    idle_.push_back(root_page);
  }
  const auto root = TRY(format::decode_pool_root(root_page->content.bytes()));
  const uint64_t bytes = TRY(io.size(meta_));
  if (root.groups > bytes / (kGroupPages * kPageBytes)) {
    return fail(Errc::corrupt, "'{}' has {} bytes, the {} page groups of the pool root need {}",
                meta_.name(), bytes, root.groups.get(), root.groups * kGroupPages * kPageBytes);
  }
  groups_ = root.groups;
  config_.grains = root.blocks * kBlockGrains;
  info_pages_.resize(groups_);

  constexpr uint64_t kReaders = 16;
  uint64_t next = 1;
  Result<void> result;
  {
    Group readers(io);
    for (uint64_t i = 0; i < kReaders && i + 1 < groups_; ++i) {
      io.spawn(readers, [&] {
        while (next < groups_ && result) {
          Result<void> loaded = load_group(io, next++);
          if (!loaded && result) result = std::move(loaded);
        }
      });
    }
  }
  TRY(result);
  count_pages();
  TRY(verify_replayed());
  return root;
}

void PageStore::count_pages() {
  used_pages_ = 0;
  free_pages_ = 0;
  free_map_.assign(groups_ * kGroupPages / 64, 0);
  for (PageNo no = 0; no < groups_ * kGroupPages; ++no) {
    if (format::is_info_page(no)) continue;
    if (static_cast<PageKind>(info(no).kind) != PageKind::free) {
      ++used_pages_;
      continue;
    }
    free_map_[no / 64] |= uint64_t{1} << (no % 64);
    ++free_pages_;
  }
}

// A page that replay could not make whole is left as it is at home, where its checksum gives it
// away to whoever needs it (G3); the rest of the pool opens.
Result<void> PageStore::verify_replayed() {
  for (const auto& [no, crc] : replayed_) {
    Page* const page = lookup(no);
    if (page->resident) continue;  // An info page: load_group has checked it.
    if (no >= groups_ * kGroupPages) {
      return fail(Errc::corrupt, "journal: page {} is beyond the metadata", no);
    }
    const PageInfo expected = info(no);
    const auto kind = static_cast<PageKind>(expected.kind);
    if (kind == PageKind::free) {
      drop(*page);
      continue;
    }
    const uint32_t actual = format::page_crc(uuid_, no, page->content.bytes());
    const bool whole = actual == crc && actual == expected.crc;
    if (whole && check_form(no, kind, page->content.bytes())) continue;
    if (no == format::kRootPage) {
      return fail(Errc::corrupt, "pool root in '{}': crc {:08x}, expected {:08x}", meta_.name(),
                  actual, expected.crc.get());
    }
    log(LogLevel::error,
        "metadata page {} in '{}' is corrupt: crc {:08x} after replay, expected {:08x}", no,
        meta_.name(), actual, expected.crc.get());
    drop(*page);
  }
  replayed_.clear();
  return ok;
}

// The pages of a shadow as they were when it was sealed, beside those in memory: judged as a whole
// before any is believed.
class PageStore::Overlay final : public format::RecordSink {
 public:
  Overlay(PageStore& store, Io& io) : store_(store), io_(io) {}
  Result<void> page(PageNo no, uint32_t /*crc*/, bool fresh) override {
    if (no >= store_.groups_ * kGroupPages) {
      return fail(Errc::corrupt, "shadow: page {} is beyond the metadata", no);
    }
    Image& image = images_[no];
    image_ = &image;
    if (fresh) {
      if (format::is_info_page(no)) {
        return fail(Errc::corrupt, "shadow: page {} keeps checksums, and begins anew", no);
      }
      image.fresh = true;
      image.content = AlignedBuffer(kPageBytes);
      std::memset(image.content.data(), 0, kPageBytes);
      return ok;
    }
    if (image.content.size() != 0) return ok;
    const View before = format::is_info_page(no) ? View(store_.info_page(no).content.bytes())
                                                 : TRY(as_it_was(no, image));
    image.content = AlignedBuffer(kPageBytes);
    std::memcpy(image.content.data(), before.data(), kPageBytes);
    return ok;
  }
  Result<void> words(size_t first, View words) override {
    std::memcpy(image_->content.data() + first * 8, words.data(), words.size());
    return ok;
  }

  Result<void> check() const {
    for (const auto& [no, image] : images_) {
      if (format::is_info_page(no)) {
        TRY(format::check_info_entries(no, image.content.bytes()));
      } else if (kind_of(no) != PageKind::free) {
        TRY(store_.check_form(no, kind_of(no), image.content.bytes()));
      }
    }
    return ok;
  }
  // Does not wait.
  void apply() {
    for (auto& [no, image] : images_) {
      image.pin.reset();
      if (!format::is_info_page(no) && kind_of(no) == PageKind::free) {
        if (Page* const gone = store_.lookup(no)) store_.drop(*gone);
        continue;
      }
      Page* page = store_.lookup(no);
      if (image.fresh) {
        if (page == nullptr) page = &store_.adopt(no);
        std::memset(page->content.data(), 0, kPageBytes);
        page->fresh = true;
        store_.mark_changed(*page, 0, 0);
      }
      CHECK(page != nullptr, "page {} left the cache while it was pinned", no);
      page->kind = PageKind::free;  // Its info may say something else now.
      for (size_t i = 0; i < format::kPageWords; ++i) {
        const size_t at = i * 8;
        if (std::memcmp(page->content.data() + at, image.content.data() + at, 8) == 0) continue;
        std::memcpy(page->content.data() + at, image.content.data() + at, 8);
        store_.mark_changed(*page, i, 1);
      }
    }
  }

 private:
  struct Image {
    AlignedBuffer content;
    PageRef pin;
    bool fresh = false;
  };
  Result<View> as_it_was(PageNo no, Image& image) {
    const PageInfo known = store_.info(no);
    const auto kind = static_cast<PageKind>(known.kind);
    if (kind == PageKind::free) return fail(Errc::corrupt, "shadow: page {} is free", no);
    image.pin = TRY(store_.get(io_, no, kind));
    return image.pin.view();
  }
  // As the shadow has it.
  PageKind kind_of(PageNo no) const {
    const auto found = images_.find(format::info_page_of(no));
    if (found == images_.end()) return static_cast<PageKind>(store_.info(no).kind);
    const View entries = View(found->second.content.bytes()).subspan(offsetof(InfoPage, entries));
    const auto entry =
        load<PageInfo>(entries.subspan(format::info_entry_of(no) * sizeof(PageInfo)));
    return static_cast<PageKind>(entry.kind);
  }

  PageStore& store_;
  Io& io_;
  std::map<PageNo, Image> images_;
  Image* image_ = nullptr;
};

Result<void> PageStore::take_over(Io& io, View records) {
  Overlay overlay(*this, io);
  TRY(format::walk_records(records, overlay));
  TRY(overlay.check());
  const NoWait atom;
  overlay.apply();
  count_pages();
  return ok;
}

Result<void> PageStore::settle_replay(Io& io) {
  if (dirty_.empty()) return ok;
  Capture all;
  all.pages_max = SIZE_MAX;
  capture_oldest(all);
  TRY(write_captured(io, all));
#ifndef FIRN_MUTANT_no_replay_flush
  TRY(io.flush(meta_));
#endif
  while (Page* const page = dirty_.pop_front()) {
    page->oldest_unhomed = 0;
    page->newest = 0;
    if (!page->resident && page->pins == 0) idle_.push_back(page);
  }
  evict_beyond_budget();
  return ok;
}

Result<void> PageStore::format_first_group(Io& io, const format::PoolRoot& root) {
  CHECK(root.groups == 1 && root.magic == format::kPoolRootMagic);
  AlignedBuffer group(kGroupPages * kPageBytes);
  std::memset(group.data(), 0, group.size());
  InfoPage info;
  info.magic = format::kInfoMagic;
  info.page = 0;
  PageInfo& entry = info.entries[format::info_entry_of(format::kRootPage)];
  entry.kind = static_cast<std::byte>(PageKind::pool_root);
  entry.crc = format::page_crc(uuid_, format::kRootPage, view_of(root));
  info.crc = format::info_crc(uuid_, 0, view_of(info));
  std::memcpy(group.data(), &info, sizeof info);
  std::memcpy(group.data() + kPageBytes, &root, sizeof root);
  TRY(io.write(meta_, 0, group.bytes()));
  return io.flush(meta_);
}

}  // namespace firn::store
