// SPDX-License-Identifier: Apache-2.0
// PageTable: the pages in memory, by number.
//
//  N1  A page stays at its address from put() until take() or drop().
//  N2  What was asked for lately is found with one load and one comparison: a guest's request asks
//      for the same few index pages, and for a leaf of the working set. A place of `recent_` that
//      holds a page holds one that is in `pages_`.
#pragma once

#include <array>
#include <memory>
#include <unordered_map>
#include <utility>

#include "base/check.h"
#include "format/page.h"

namespace firn::store {

template <class Page>
class PageTable {
 public:
  using No = format::PageNo;

  // Null when it is not in memory.
  Page* find(No no) const {
    Page*& recent = recent_[no % kRecent];
    if (recent != nullptr && recent->no == no) return recent;
    const auto found = pages_.find(no);
    return found == pages_.end() ? nullptr : recent = found->second.get();
  }
  Page& put(std::unique_ptr<Page> page) {
    const No no = page->no;
    const auto [placed, fresh] = pages_.try_emplace(no, std::move(page));
    CHECK(fresh, "page {} is in memory twice", no);
    return *placed->second;
  }
  std::unique_ptr<Page> take(Page& page) {
    if (recent_[page.no % kRecent] == &page) recent_[page.no % kRecent] = nullptr;
    return std::move(pages_.extract(page.no).mapped());
  }
  void drop(Page& page) { take(page).reset(); }
  size_t size() const { return pages_.size(); }

 private:
  static constexpr size_t kRecent = 2048;
  std::unordered_map<No, std::unique_ptr<Page>> pages_;
  mutable std::array<Page*, kRecent> recent_{};
};

}  // namespace firn::store
