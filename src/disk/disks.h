// SPDX-License-Identifier: Apache-2.0
// Disks: the catalog of a pool's disks, and the way to open one.
//
// Names: 1 to 128 bytes of [A-Za-z0-9._:-], not beginning with '.' or '-'; '@' and '/' never (they
// separate snapshots and paths). Every change is one transaction, durable when the verb returns.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "disk/device.h"
#include "store/pool.h"

namespace firn::disk {

struct DiskInfo {
  std::string name;
  std::string uuid;
  uint64_t bytes = 0;           // What the guest sees.
  uint64_t mapped_bytes = 0;    // Own grains: data this disk holds in the pool.
  uint64_t metadata_bytes = 0;  // Own map pages.
  int64_t created_ns = 0;       // Wall clock.
  uint32_t attached = 0;        // How many front-end users hold it open now.
  std::map<std::string, std::string> settings;
};

struct CheckReport {
  uint64_t disks = 0;
  uint64_t layers = 0;
  uint64_t pages = 0;          // Metadata pages visited.
  uint64_t grains = 0;         // Own data grains counted.
  uint64_t leaked_blocks = 0;  // ALLOCATED, but holding no own grain and nobody's open block.
  uint64_t leaked_grains = 0;  // Marked used, owned by no map.
  uint64_t leaked_pages = 0;
  uint64_t double_owned = 0;  // Grains or pages with two owners.
  uint64_t unmarked = 0;      // Owned, but marked free.
  uint64_t corrupt_pages = 0;
  uint64_t repaired = 0;
  std::vector<std::string> findings;  // One sentence each, at most 1,000.
  bool clean() const { return findings.empty(); }
};

class Disks {
 public:
  static Result<std::unique_ptr<Disks>> open(Io& io, store::Pool& pool);
  virtual ~Disks() = default;

  virtual std::vector<DiskInfo> list() const = 0;  // By name.
  virtual Result<DiskInfo> info(std::string_view name) const = 0;
  virtual Result<void> create(Io& io, std::string_view name, uint64_t bytes) = 0;
  virtual Result<void> rename(Io& io, std::string_view name, std::string_view to) = 0;
  // Grows at once, live. Shrinking discards the tail: refused with Errc::busy while attached.
  virtual Result<void> resize(Io& io, std::string_view name, uint64_t bytes) = 0;
  // Refused with Errc::busy while attached. Gives all space back; restartable after a crash.
  virtual Result<void> remove(Io& io, std::string_view name) = 0;
  // Keys are checked by the engine; here they are stored. An empty value removes the key.
  virtual Result<void> set(Io& io, std::string_view name, std::string_view key,
                           std::string_view value) = 0;
  // The disk as a device, shared by everybody who attaches it: D1 holds across all of them.
  // Released by dropping the pointer on the pool's shard.
  virtual Result<std::shared_ptr<BlockDevice>> attach(Io& io, std::string_view name) = 0;
  // Walks every layer and recounts every grain, block and page. With `repair`, returns leaks to the
  // pool (offline only). Never repairs what is corrupt: it names it.
  virtual Result<CheckReport> check(Io& io, bool repair) = 0;

 protected:
  Disks() = default;
};

}  // namespace firn::disk
