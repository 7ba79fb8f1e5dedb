// SPDX-License-Identifier: Apache-2.0
// Looking at everything: the audit of the counters against the logical layer, the scrub of what is
// stored, and the metadata made again from the segments.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "archive/archive.h"

namespace firn::archive {

// --- audit: every reference is counted again. Reads metadata only.

struct AuditReport {
  uint64_t disks = 0;
  uint64_t snapshots = 0;
  uint64_t rows = 0;
  uint64_t chunks = 0;      // With references.
  uint64_t references = 0;  // Of all rows.
  uint64_t segments = 0;
  uint64_t live_blocks = 0;
  uint64_t dead_blocks = 0;
  uint64_t stored_bytes = 0;          // Of data segments.
  std::vector<std::string> findings;  // At most 1000.
  bool clean() const { return findings.empty(); }
};
Result<AuditReport> audit(Io& io, Archive& archive);

// --- scrub: every byte that is stored is read and compared with its checksum. Needs no key.

struct ScrubDamage {
  std::string object;
  std::string why;
  // What it hurts: the snapshots that show it, and where.
  struct Hurt {
    std::string snapshot;       // "DISK@SNAP"
    std::vector<Range> ranges;  // Bytes; at most 100.
  };
  std::vector<Hurt> hurts;
};
struct ScrubReport {
  uint64_t objects = 0;
  uint64_t bytes = 0;
  uint64_t groups = 0;
  std::vector<ScrubDamage> damages;
};
using ScrubProgress = std::function<void(uint64_t done, uint64_t total)>;
Result<ScrubReport> scrub(Io& io, Archive& archive, const ScrubProgress& progress);

// --- rebuild: from the segments alone

struct RebuildReport {
  uint64_t objects = 0;
  uint64_t segments = 0;
  uint64_t snapshots = 0;
  uint64_t chunks = 0;
  std::vector<std::string> findings;  // Objects that cannot be read, snapshots that lack blocks.
};
// Removes all metadata and makes it again. The label too, if it is gone: a copy is in each segment.
// `log_directory` as in Archive::How.
Result<RebuildReport> rebuild(Io& io, ObjectStore& store, const Credentials& credentials,
                              const std::string& log_directory);

}  // namespace firn::archive
