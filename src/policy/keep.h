// SPDX-License-Identifier: Apache-2.0
// Which snapshots of a disk its keep policy deletes: all but the newest `keep`, and the oldest ones
// while the chain is longer than `chain_max`. Both are off by default. Decides about one disk; says
// nothing about how a layer is taken out (source of that: US 9116726).
//
//  K1  A snapshot in use is never chosen, nor is one twice.
//  K2  The newest `keep` are never chosen for their number. The chain limit may choose them,
//      oldest first, but never the newest of all: somebody has just made it.
//  K3  The order of creation decides, not the clock: a clock that jumps deletes nothing. Times,
//      then names, only separate equals.
//  K4  What is chosen for the chain's sake shortens the chain: snapshots outside it, and those that
//      other disks rest on, are passed over.
//  K5  With nothing in the way both limits hold afterwards; else `blocked` says by how many not.
//  K6  Deciding again after the chosen ones have gone chooses nothing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace firn::policy {

struct KeepRule {
  uint64_t keep = 0;       // Snapshots; 0: any number.
  uint64_t chain_max = 0;  // Layers from the disk's own down to the base; 0: any number.
};

struct KeepSnapshot {
  std::string_view name;
  uint64_t order = 0;       // Ascends with each snapshot made: the layer's id.
  uint64_t created_ns = 0;  // Wall clock.
  bool in_use = false;      // A client has it open, or a job reads it.
  bool in_chain = true;     // The disk rests on it (false beside a revert).
  bool shared = false;      // Other disks rest on it: its layer stays when its name goes.
};

struct KeepChoice {
  std::vector<size_t> doomed;  // Indices into the snapshots given, oldest first.
  uint64_t blocked = 0;        // Snapshots or layers that should go and cannot now.
};

// `chain_layers`: layers of the disk's chain now, its own and unnamed ones included.
KeepChoice choose_doomed(KeepRule rule, std::span<const KeepSnapshot> snapshots,
                         uint64_t chain_layers);

}  // namespace firn::policy
