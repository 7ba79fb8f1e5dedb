// SPDX-License-Identifier: Apache-2.0
// The chain of catalogs in the store: finding the newest, taking over, appending.
//
// Contract:
//  K1  A catalog's number is taken by the first that makes the object; the chain has no gaps from
//      its floor to its newest. Who makes number n knew number n - 1.
//  K2  An epoch is taken by making the object epoch/N, which is never removed. A writer may
//      acknowledge what it appended only when, after it appended, nobody had claimed the next
//      epoch: so a writer that slept while its numbers were taken, pruned and forgotten finds out.
//  K3  An append that ends in an error may have happened. It is repeated with the same bytes, and
//      found by them when it had happened; nothing else is appended before that is known.
//  K4  Nothing is listed to find the newest catalog for reading: the hint `newest` names one that
//      existed, from there the numbers are tried in doubling steps. A writer that takes over lists
//      what lies above the hint once, and so never goes on from a number that is not the newest. A
//      reader falls back to a list when the hint leads nowhere.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "format/lsm_catalog.h"
#include "io/io.h"
#include "io/object_store.h"

namespace firn::store {

class LsmCatalogs {
 public:
  LsmCatalogs(ObjectStore& store, std::string prefix) : store_(store), prefix_(std::move(prefix)) {}

  std::string key_of(uint64_t version) const;
  std::string epoch_key(uint64_t epoch) const;
  std::optional<uint64_t> version_of(const std::string& key) const;  // Of a key from a list.

  Result<format::LsmCatalog> load(Io& io, uint64_t version);
  // The newest from `known` on, which a reader has seen, or from the hint (0). Nothing: no tree.
  Result<std::optional<format::LsmCatalog>> newest(Io& io, uint64_t known);
  // Claims the next epoch.
  Result<uint64_t> claim_epoch(Io& io);
  // The newest by a list. A writer asks after it has claimed its epoch: then only one more append
  // of an earlier writer can come in between, and that one is met at the next number (K1).
  Result<std::optional<format::LsmCatalog>> newest_for_writer(Io& io);
  // Makes the object of `body`, which is the catalog `version` of `epoch`. Errc::fenced: another
  // writer has taken over; Errc::exists: as it did, but its epoch is lower (while taking over).
  // Other errors: see K3.
  Result<void> append(Io& io, uint64_t version, uint64_t epoch, View body);
  // Whether nobody claimed a later epoch: ok, or Errc::fenced, or that it could not be found out.
  Result<void> confirm(Io& io, uint64_t epoch);
  // A wrong or missing hint costs requests, no more.
  Result<void> hint(Io& io, const format::LsmCatalog& catalog);

 private:
  Result<std::vector<std::byte>> read_whole(Io& io, const std::string& key, uint64_t bytes_max);
  Result<std::optional<format::LsmPointer>> read_hint(Io& io);
  Result<bool> is_there(Io& io, uint64_t version);
  Result<uint64_t> gallop(Io& io, uint64_t from);
  Result<uint64_t> newest_by_list(Io& io, uint64_t after);

  ObjectStore& store_;
  std::string prefix_;
};

}  // namespace firn::store
