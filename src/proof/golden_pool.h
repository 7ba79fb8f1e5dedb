// SPDX-License-Identifier: Apache-2.0
// A whole pool in a small file, so that later versions can show that they read what earlier ones
// wrote: made on a simulated world (no clock, no chance), its pages run-length coded.
//
// The file: the line "firn pool image 1", then for each file a path, its size in 4 KiB pages, and
// runs of pages: zero, one word repeated, few words, or as they are. All numbers little-endian.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "base/result.h"
#include "disk/disks.h"
#include "sim/world.h"

namespace firn::proof {

// Four trees of layers with everything that a tree can be: a deep chain, a fan of clones, layers of
// several levels, layers without a name (some kept by their children, some half merged), reverts.
// Not closed: the journal has to be replayed.
sim::World make_golden_pool();
inline constexpr const char* kGoldenPool = "/pool";

std::vector<std::byte> pack_world(const sim::World& world);
Result<sim::World> unpack_world(View packed);

// Of each DISK and DISK@SNAP: the MD5 of every grain that is not zero and of its number.
Result<std::map<std::string, std::string>> sums_of(Io& io, disk::Disks& disks);

}  // namespace firn::proof
