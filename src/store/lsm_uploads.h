// SPDX-License-Identifier: Apache-2.0
// Uploads of tables with a limit of how many at a time, and their first error. Inside LsmImpl.
#pragma once

#include <optional>

#include "store/lsm_impl.h"

namespace firn::store {

class LsmImpl::Uploads {
 public:
  Uploads(Io& io, LsmImpl& lsm) : io_(io), lsm_(lsm), group_(io) {}

  // Waits while all places are taken. `staged` outlives this. Nothing is begun after an error.
  void start(Staged& staged) {
    while (group_.running() >= lsm_.how_.uploads) io_.park(places_);
    if (error_) return;
    io_.spawn(group_, [this, &staged] {
      const auto put = lsm_.upload(io_, staged);
      if (!put && !error_) error_ = put.error();
      io_.wake(places_);
    });
  }
  bool failed() const { return error_.has_value(); }
  Result<void> finish() {
    group_.wait();
    if (error_) return *error_;
    return ok;
  }

 private:
  Io& io_;
  LsmImpl& lsm_;
  WaitList places_;
  std::optional<Error> error_;
  Group group_;  // The last member: its children use the others.
};

}  // namespace firn::store
