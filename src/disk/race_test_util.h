// SPDX-License-Identifier: Apache-2.0
// A pool with cold pages on a simulated world, for races of jobs, clients and changes of the tree:
// the same one under many seeds. Tests only.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <set>
#include <string>

#include "base/aligned.h"
#include "base/log.h"
#include "base/prng.h"
#include "disk/disks.h"
#include "sim/sim_io.h"

namespace firn::disk {

inline constexpr uint64_t kLeaf = 2 * kMiB;  // What one leaf maps.

// A pool whose pages are cold: nearly every step of every walk waits for the disk.
struct Scene {
  sim::SimIo& io;
  std::unique_ptr<store::Pool> pool{};
  std::unique_ptr<Disks> disks{};

  void open(bool background = false) {
    pool = store::Pool::open(io, "/p", {.cache_bytes = 4 * kPageBytes, .background = background})
               .take();
    disks = Disks::open(io, *pool).take();
  }
  void close() {
    disks.reset();
    const auto closed = pool->close(io);
    EXPECT_TRUE(closed) << text_of(closed.error());
    pool.reset();
  }
  void reopen() {
    close();
    open();
  }
  std::shared_ptr<BlockDevice> attach(const std::string& name) {
    auto device = disks->attach(io, name);
    EXPECT_TRUE(device) << text_of(device.error());
    return device ? device.take() : nullptr;
  }
  void write(BlockDevice& disk, uint64_t at, char with, uint64_t bytes = kGrainBytes) {
    AlignedBuffer buffer(bytes);
    std::memset(buffer.data(), with, bytes);
    const ::iovec slice = slice_of(buffer.bytes());
    ok(disk.write(io, {at, bytes}, Iovec(&slice, 1), {}));
  }
  void write(const std::string& disk, uint64_t at, char with, uint64_t bytes = kGrainBytes) {
    write(*attach(disk), at, with, bytes);
  }
  // What the grain there is full of; '?' when it is torn or cannot be read.
  char read(BlockDevice& disk, uint64_t at) {
    AlignedBuffer buffer(kGrainBytes);
    const ::iovec slice = slice_of(buffer.bytes());
    if (!disk.read(io, {at, kGrainBytes}, Iovec(&slice, 1))) return '?';
    const std::byte first = buffer.data()[0];
    const bool whole = std::ranges::all_of(buffer.bytes(), [&](std::byte b) { return b == first; });
    return whole ? static_cast<char>(first) : '?';
  }
  char read(const std::string& name, uint64_t at) { return read(*attach(name), at); }
  void ok(const Result<void>& done) { EXPECT_TRUE(done) << text_of(done.error()); }
  void snapshot(const char* disk, const char* name) { ok(disks->snapshot(io, disk, name)); }
  void forget(const char* disk, const char* name) { ok(disks->remove_snapshot(io, disk, name)); }
  void pause(uint64_t us) { io.sleep(std::chrono::microseconds(us)); }
  void expect_clean() {
    const auto report = disks->check(io, false);
    ASSERT_TRUE(report) << text_of(report.error());
    for (const std::string& finding : report->findings) ADD_FAILURE() << finding;
  }
  uint64_t grains() const { return pool->info().used_bytes / kGrainBytes; }
};

// The same race under so many seeds. The scene has disk "a" of 4 GiB, attached to nobody.
inline void race(uint64_t seeds, const std::function<void(Scene&, Prng&)>& act,
                 const std::function<void(Scene&)>& prepare = {}) {
  set_log_sink([](LogLevel, std::string_view) {});
  for (uint64_t seed = 1; seed <= seeds; ++seed) {
    SCOPED_TRACE(fmt::format("seed {}", seed));
    sim::World world;
    sim::SimIo io(world, seed, {.operations_max = 200'000});
    io.run([&] {
      ASSERT_TRUE(store::Pool::create(io, "/p", {.bytes = 24 * kMiB, .journal_bytes = kMiB}));
      Scene s{io};
      s.open();
      ASSERT_TRUE(s.disks->create(io, "a", 4 * kGiB));
      if (prepare) prepare(s);
      s.reopen();
      Prng prng(seed);
      act(s, prng);
      s.expect_clean();
      s.close();
    });
    if (testing::Test::HasFailure()) return;
  }
  set_log_sink(nullptr);
}

// Grains at the begin of six leaves in two index pages, all 'a'.
inline constexpr uint64_t kSpots[] = {0, kLeaf, 2 * kLeaf, 3 * kLeaf, 600 * kLeaf, 601 * kLeaf};
inline void fill(Scene& s, char with) {
  const auto a = s.attach("a");
  for (const uint64_t spot : kSpots) s.write(*a, spot, with, 4 * kGrainBytes);
}

struct Differ final : DiffSink {
  std::set<uint64_t> grains;
  bool add(DiffRun run) override {
    for (uint64_t at = run.at; at < run.at + run.length; at += kGrainBytes) {
      grains.insert(at / kGrainBytes);
    }
    return true;
  }
};

}  // namespace firn::disk
