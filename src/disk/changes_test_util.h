// SPDX-License-Identifier: Apache-2.0
// A tracked disk for tests: a plain file that is written in place, and the tracker beside it. The
// file stands for the data file: the medium keeps what it likes of it before a flush. Tests only.
#pragma once

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/aligned.h"
#include "disk/catalog.h"
#include "disk/changes.h"
#include "sim/sim_io.h"

namespace firn::disk {

inline constexpr const char* kTrackedFile = "/data.tracked";  // A medium that keeps 4 KiB whole.
inline constexpr uint64_t kTrackedBytes = 40 * kMiB;
inline constexpr uint64_t kTrackedBlock = 64 * kKiB;

// Dirty runs as text: "0+65536 131072+65536".
class RunList final : public ChangeSink {
 public:
  bool add(Range dirty) override {
    EXPECT_TRUE(runs.empty() || runs.back().end() < dirty.at) << "in order, never touching";
    runs.push_back(dirty);
    return runs.size() < limit;
  }
  bool covers(uint64_t at) const {
    for (const Range& run : runs) {
      if (at >= run.at && at < run.end()) return true;
    }
    return false;
  }
  uint64_t bytes() const {
    uint64_t sum = 0;
    for (const Range& run : runs) sum += run.length;
    return sum;
  }
  // In blocks: "0 2-3 9".
  std::string text() const {
    std::string text;
    for (const Range& run : runs) {
      if (!text.empty()) text += ' ';
      const uint64_t first = run.at / kTrackedBlock;
      const uint64_t last = (run.end() - 1) / kTrackedBlock;
      text += first == last ? fmt::format("{}", first) : fmt::format("{}-{}", first, last);
    }
    return text;
  }
  std::vector<Range> runs;
  size_t limit = SIZE_MAX;
};

// What a tracker needs of a disk: where data is.
class MapOnly final : public BlockDevice {
 public:
  explicit MapOnly(uint64_t bytes) : bytes_(bytes) {}
  std::vector<Range> data;
  Geometry geometry() const override { return {.bytes = bytes_}; }
  Result<void> read(Io&, Range, Iovec) override { return no(); }
  Result<void> write(Io&, Range, Iovec, WriteFlags) override { return no(); }
  Result<void> zero(Io&, Range, ZeroFlags) override { return no(); }
  Result<void> discard(Io&, Range) override { return no(); }
  Result<void> flush(Io&) override { return no(); }
  Result<void> map(Io&, Range range, ExtentSink& sink) override {
    uint64_t at = range.at;
    for (const Range& one : data) {
      if (one.at > at && !sink.add({one.at - at, Extent::hole, 0})) return ok;
      if (!sink.add({one.length, Extent::data, 1})) return ok;
      at = one.end();
    }
    if (at < range.end()) sink.add({range.end() - at, Extent::hole, 0});
    return ok;
  }

 private:
  static Error no() { return fail(Errc::unsupported, "a map only"); }
  uint64_t bytes_;
};

// An open pool, its catalog, the tracker of its one disk, and the file that is the disk.
struct Tracked {
  explicit Tracked(Io& world) : io(world) {}
  Io& io;
  std::unique_ptr<store::Pool> pool;
  std::unique_ptr<Catalog> catalog;
  std::unique_ptr<ChangeTracker> tracker;
  std::unique_ptr<File> file;

  static format::Uuid uuid() {
    format::Uuid uuid;
    uuid.fill(std::byte{0xd1});
    return uuid;
  }

  // A new pool with a disk that is not tracked yet.
  static void make(Io& io, uint64_t bytes = kTrackedBytes) {
    ASSERT_TRUE(store::Pool::create(io, "/p", {.bytes = 17 * kMiB, .journal_bytes = kMiB}));
    auto file = io.open(kTrackedFile, {.create = true}).take();
    ASSERT_TRUE(io.resize(*file, std::min(bytes, kTrackedBytes)));
    auto pool = store::Pool::open(io, "/p", {.background = false}).take();
    {
      Catalog catalog(*pool);
      ASSERT_TRUE(catalog.load(io));
      const auto admission = pool->pages().admit(io).take();
      const Catalog::Slot slot = catalog.reserve(io).take();
      catalog.put(slot, ChangeTracker::fresh_record(uuid(), bytes, 1));
    }
    ASSERT_TRUE(pool->close(io));
  }

  Result<void> open(bool read_only = false) {
    pool = TRY(store::Pool::open(io, "/p", {.background = false, .read_only = read_only}));
    catalog = std::make_unique<Catalog>(*pool);
    TRY(catalog->load(io));
    Catalog::Slot slot = TRY(catalog->pin(io, 0));
    tracker = TRY(ChangeTracker::open(io, *pool, std::move(slot.page), slot.at, "disk"));
    file = TRY(io.open(kTrackedFile, {}));
    return ok;
  }
  Result<void> begin(std::vector<Range> data = {}) {
    MapOnly map(tracker->bytes());
    map.data = std::move(data);
    TRY(tracker->free_pages(io));
    {
      const auto admission = TRY(pool->pages().admit(io));
      tracker->activate();
    }
    return tracker->begin(io, map);
  }
  Result<void> write(uint64_t at, char with, uint64_t length = 4096) {
    const std::vector<std::byte> bytes(length, static_cast<std::byte>(with));
    auto flight = TRY(tracker->intend(io, {at, length}));
    TRY(io.write(*file, at, View(bytes)));
    flight.mark();
    return ok;
  }
  // As the pool does it: data is durable before the journal says that an event was.
  Result<ChangeId> event() {
    const auto hold = tracker->turn(io);
    TRY(tracker->ready());
    {
      const auto admission = TRY(pool->pages().admit(io));
      tracker->take();
    }
    const ChangeId id = tracker->now();
    TRY(io.flush(*file));
    TRY(pool->flush(io));
    TRY(tracker->settle(io));
    TRY(pool->flush(io));
    return id;
  }
  RunList changed(uint64_t since, std::optional<uint64_t> until = {}) {
    RunList list;
    const auto asked = tracker->query(io, since, until, {0, tracker->bytes()}, list);
    EXPECT_TRUE(asked) << text_of(asked.error());
    return list;
  }
  void close() {
    ASSERT_TRUE(tracker->close(io));
    abandon_tracker();
    ASSERT_TRUE(pool->close(io));
    pool.reset();
  }
  // As kill -9 would.
  void abandon() {
    abandon_tracker();
    pool.reset();
  }
  void abandon_tracker() {
    tracker.reset();
    catalog.reset();
    file.reset();
  }
};

}  // namespace firn::disk
