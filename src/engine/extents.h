// SPDX-License-Identifier: Apache-2.0
// A page of extents: what a disk or snapshot has allocated, or where it differs from another. The
// one who asks goes on from `next` until `complete`; between two pages nothing is kept here.
//
//  P1  Extents ascend, do not touch when of one kind, and lie in [offset, bytes).
//  P2  Pages of any size, one after the other, give together the same bytes as one large page.
//
// Of a snapshot all pages are of one state. A live disk may be asked too: it changes meanwhile.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "disk/disks.h"

namespace firn::engine {

struct ExtentPage {
  uint64_t bytes = 0;  // Of what was asked about.
  std::vector<disk::DiffRun> extents;
  uint64_t next = 0;  // Where the next page begins.
  bool complete = false;
};

inline constexpr uint64_t kExtentsPerPage = 10'000;

// `base` empty: what `name` has allocated, all of kind data.
Result<ExtentPage> page_of_extents(Io& io, disk::Disks& disks, std::string_view name,
                                   std::string_view base, uint64_t offset, uint64_t limit);

}  // namespace firn::engine
