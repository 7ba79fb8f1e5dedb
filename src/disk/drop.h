// SPDX-License-Identifier: Apache-2.0
// Takes a layer apart on which nothing stands: frees its own grains and pages, nobody else's.
// Restartable: what is freed is gone from the map in the same atom.
#pragma once

#include "disk/layer.h"
#include "disk/steps.h"
#include "store/pool.h"

namespace firn::disk {

class Drop {
 public:
  Drop(store::Pool& pool, Layer& layer, Steps& steps) : pool_(pool), layer_(layer), steps_(steps) {}
  // Until the map is empty. Errc::cancelled: to be continued.
  Result<void> run(Io& io);

 private:
  Result<void> subtree(Io& io, const PageRef& parent, uint64_t slot, format::IndexEntry child,
                       uint8_t level);
  Result<void> grains(Io& io, PageNo page);
  Result<void> forget(Io& io, const PageRef& parent, uint64_t slot, format::IndexEntry child,
                      uint8_t level);

  store::Pool& pool_;
  Layer& layer_;
  Steps& steps_;
};

}  // namespace firn::disk
