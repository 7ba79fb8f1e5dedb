// SPDX-License-Identifier: Apache-2.0
// What the tests of the archive share: a bucket that is simulated, disks in memory, and the model:
// what each snapshot must show. Tests only.
#pragma once

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "archive/audit.h"
#include "archive/clean.h"
#include "archive/push.h"
#include "archive/restore.h"
#include "base/prng.h"
#include "sim/sim_io.h"
#include "sim/sim_store.h"

namespace firn::archive {

using Content = std::vector<std::byte>;

inline constexpr uint64_t kTestDiskGrains = 2500;  // Three regions, the last one partly.

class MemorySource final : public PushSource {
 public:
  explicit MemorySource(const Content& content) : content_(content) {}
  unsigned lanes() const override { return 3; }
  Result<void> read(Io& io, unsigned, uint64_t at, Bytes into) override {
    io.yield();
    std::memcpy(into.data(), content_.data() + at, into.size());
    read_bytes += into.size();
    return ok;
  }
  uint64_t read_bytes = 0;

 private:
  const Content& content_;
};

class MemoryTarget final : public RestoreTarget {
 public:
  explicit MemoryTarget(uint64_t bytes) : content(bytes) {}
  unsigned lanes() const override { return 2; }
  Result<void> write(Io& io, unsigned, uint64_t at, View from) override {
    io.yield();
    std::memcpy(content.data() + at, from.data(), from.size());
    return ok;
  }
  Content content;
};

inline format::Uuid uuid_of(uint64_t number) {
  format::Uuid uuid{};
  std::memcpy(uuid.data(), &number, sizeof number);
  return uuid;
}

// Random runs: fresh bytes, few different blocks, zeroes, copies from elsewhere.
inline void scribble(Prng& prng, Content& content, int runs) {
  const uint64_t grains = content.size() / kGrainBytes;
  for (int i = 0; i < runs; ++i) {
    const uint64_t count = 1 + prng.below(40);
    const uint64_t at = prng.below(grains - count);
    const uint64_t from = prng.below(grains - count);
    const uint64_t kind = prng.below(5);
    for (uint64_t k = 0; k < count; ++k) {
      const Bytes grain = Bytes(content).subspan((at + k) * kGrainBytes, kGrainBytes);
      if (kind == 0) {
        std::ranges::fill(grain, std::byte{});
      } else if (kind == 1) {
        std::ranges::fill(grain, static_cast<std::byte>(1 + prng.below(5)));
      } else if (kind == 2) {
        const Content copy(content.begin() + static_cast<ptrdiff_t>((from + k) * kGrainBytes),
                           content.begin() + static_cast<ptrdiff_t>((from + k + 1) * kGrainBytes));
        std::ranges::copy(copy, grain.begin());
      } else {
        for (size_t b = 0; b < grain.size(); b += 8) {
          const uint64_t word = prng.next();
          std::memcpy(grain.data() + b, &word, 8);
        }
      }
    }
  }
}

// Where two contents differ, to the grain, as the pool's maps would say.
inline std::vector<TouchedRun> touched(const Content& before, const Content& after) {
  std::vector<TouchedRun> runs;
  for (uint64_t grain = 0; grain * kGrainBytes < after.size(); ++grain) {
    const View b = View(after).subspan(grain * kGrainBytes, kGrainBytes);
    const bool same =
        before.empty()
            ? all_zero(b)
            : std::ranges::equal(View(before).subspan(grain * kGrainBytes, kGrainBytes), b);
    if (same) continue;
    const bool zero = all_zero(b);
    if (!runs.empty() && runs.back().grain + runs.back().count == grain &&
        runs.back().zero == zero) {
      ++runs.back().count;
    } else {
      runs.push_back({grain, 1, zero});
    }
  }
  return runs;
}

// What the archive must show: snapshots of disks, by "disk@name".
using Shown = std::map<std::string, Content>;

struct TestDisk {
  uint64_t number = 1;
  Content now = Content(kTestDiskGrains * kGrainBytes);
  Content pushed;  // As the newest snapshot in the archive has it.
};

inline PushRequest request_of(TestDisk& disk, const std::string& name, uint64_t uuid) {
  PushRequest request;
  request.disk_uuid = uuid_of(disk.number);
  request.snapshot_uuid = uuid_of(1000 + uuid);
  request.disk = fmt::format("disk{}", disk.number);
  request.name = name;
  request.bytes = disk.now.size();
  request.touched = touched(disk.pushed, disk.now);
  request.holder = "test";
  request.take_over = true;
  return request;
}

inline std::unique_ptr<Archive> open_archive(Io& io, ObjectStore& store, const std::string& log) {
  Archive::How how;
  how.log_directory = log;
  how.grace_ns = 0;
  Result<std::unique_ptr<Archive>> archive = Archive::open(io, store, how);
  EXPECT_TRUE(archive) << text_of(archive.error());
  return archive ? archive.take() : nullptr;
}

// All snapshots, in whatever state.
inline std::vector<Archive::Found> rows_of(Io& io, Archive& archive) {
  std::vector<Archive::Found> all;
  const Result<std::vector<DiskEntry>> disks = archive.disks(io);
  EXPECT_TRUE(disks) << text_of(disks.error());
  if (!disks) return all;
  for (const DiskEntry& disk : *disks) {
    const Result<std::vector<format::SnapshotRow>> rows = archive.snapshots(io, disk.number);
    EXPECT_TRUE(rows) << text_of(rows.error());
    if (!rows) return all;
    for (const format::SnapshotRow& row : *rows) all.push_back({disk, row});
  }
  return all;
}

// Every snapshot that is there, and nothing else, as it must be; counters that agree.
inline void expect_shown(Io& io, Archive& archive, const Shown& shown) {
  const Result<AuditReport> counted = audit(io, archive);
  ASSERT_TRUE(counted) << text_of(counted.error());
  EXPECT_TRUE(counted->clean()) << counted->findings.front();
  size_t there = 0;
  for (const Archive::Found& each : rows_of(io, archive)) {
    const format::SnapshotRow& row = each.snapshot;
    if (row.state != format::SnapshotState::complete) continue;
    ++there;
    const auto found = shown.find(row.disk + "@" + row.name);
    ASSERT_NE(found, shown.end()) << row.disk << "@" << row.name << " should not be there";
    MemoryTarget target(row.bytes);
    const Result<RestoreReport> report = restore(io, archive, each, target, {});
    ASSERT_TRUE(report) << text_of(report.error());
    ASSERT_TRUE(report->damaged.empty()) << report->damaged.front().why;
    ASSERT_TRUE(target.content == found->second) << found->first;
  }
  EXPECT_EQ(there, shown.size());
}

}  // namespace firn::archive
