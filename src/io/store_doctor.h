// SPDX-License-Identifier: Apache-2.0
// What an object store really does, found out by trying: whether it is fit to keep an archive.
//
// Contract:
//  E1  Everything is tried under "firn-doctor/RANDOM/", and removed again as far as the store lets.
//  E2  A check fails when an archive would lose data by what was seen; it warns when that costs
//      money, time or comfort.
//  E3  Only what makes all checks meaningless (no credentials, no bucket, no permission) is an
//      error.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "io/object_store.h"

namespace firn {

struct StoreCheck {
  enum class Verdict : uint8_t { pass, warn, fail } verdict = Verdict::pass;
  std::string name;
  std::string detail;
};
const char* name_of(StoreCheck::Verdict verdict);

struct DoctorHow {
  uint64_t large_bytes = 0;  // Also an object of so many: in parts, where the store has such.
};
Result<std::vector<StoreCheck>> examine_store(Io& io, ObjectStore& store, DoctorHow how = {});

}  // namespace firn
