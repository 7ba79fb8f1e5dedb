// SPDX-License-Identifier: Apache-2.0
#include "proof/trial.h"

#include <algorithm>
#include <unordered_set>

#include "base/aligned.h"
#include "base/log.h"
#include "disk/coalesce.h"
#include "disk/disks.h"
#include "disk/thin.h"
#include "store/pool.h"

namespace firn::proof {
namespace {

constexpr const char* kPool = "/pool";

void silent(LogLevel, std::string_view) {}

store::PoolSettings settings_of(const TrialShape& shape, bool live) {
  store::PoolSettings settings;
  settings.cache_bytes = 64 * kPageBytes;  // Small: eviction is part of life.
  settings.background = live && shape.background;
  settings.ready_low_bytes = 2 * kBlockBytes;
  settings.ready_high_bytes = 4 * kBlockBytes;
  return settings;
}

}  // namespace

Trial::Trial(uint64_t seed, TrialShape shape) : seed_(seed), shape_(shape) {
  set_log_sink(silent);
  set_up();
}

// Fills every storage block once and gives it back, so that a grain mapped before its data is
// durable shows somebody else's bytes, and not innocent zeroes.
void Trial::leave_junk(Io& io, disk::Disks& disks) const {
  CHECK(disks.create(io, "junk", shape_.pool_blocks * kBlockBytes));
  auto junk = disks.attach(io, "junk").take();
  AlignedBuffer bytes(kBlockBytes);
  std::memset(bytes.data(), 0xee, bytes.size());
  const ::iovec slice = slice_of(bytes.bytes());
  for (uint64_t block = 0; block < shape_.pool_blocks; ++block) {
    CHECK(junk->write(io, {block * kBlockBytes, kBlockBytes}, Iovec(&slice, 1), {}));
  }
  junk.reset();
  CHECK(disks.remove(io, "junk"));
}

void Trial::set_up() {
  sim::SimIo io(world_, seed_, {.order = sim::Order::immediate});
  io.run([&] {
    const auto made = store::Pool::create(io, kPool,
                                          {.bytes = shape_.pool_blocks * kBlockBytes,
                                           .journal_bytes = shape_.journal_bytes,
                                           .journal_slot_bytes = kKiB});
    CHECK(made, "{}", text_of(made.error()));
    auto pool = store::Pool::open(io, kPool, settings_of(shape_, false)).take();
    auto disks = disk::Disks::open(io, *pool).take();
    leave_junk(io, *disks);
    CHECK(disks->create(io, "main", shape_.disk_bytes));
    CHECK(disks->create(io, "grow", kMiB));
    disks.reset();
    CHECK(pool->close(io));
  });
  world_.settle();
  now_.sizes = {kMiB};
  mark();
}

void Trial::mark() {
  world_.mark(acknowledged_.size());
  now_.floors = model_.floors();
  acknowledged_.push_back(now_);
}

// --- living

constexpr uint64_t kSpots = 4;

uint64_t Trial::spot_of(uint64_t which, uint64_t spot) const {
  return spot * (shape_.disk_bytes / kGrainBytes / kSpots) + which * shape_.spot_grains;
}

void Trial::flush(Io& io, BlockDevice& disk) {
  const DiskModel::Cover cover = model_.cover();
  const auto done = disk.flush(io);
  CHECK(done || expect_errors_, "seed {}: {}", seed_, text_of(done.error()));
  if (!done) return;
  model_.raise(cover);
  mark();
}

// Discards everything that this client has: storage blocks empty, and are filled again.
void Trial::empty_all(Io& io, uint64_t which, BlockDevice& disk) {
  for (uint64_t spot = 0; spot < kSpots; ++spot) {
    const Range range{spot_of(which, spot) * kGrainBytes, shape_.spot_grains * kGrainBytes};
    request(io, disk, Kind::discard, range, false);
  }
}

// Each client has grains of its own, some side by side, some in other leaves, so that histories are
// ordered; they meet in leaves, storage blocks, commits and gathered writes.
void Trial::one_request(Io& io, uint64_t which, BlockDevice& disk, Prng& prng) {
  const uint64_t base = spot_of(which, prng.below(kSpots));
  const uint64_t spot_grains = shape_.spot_grains;
  const uint64_t kind = prng.below(10);
  if (prng.one_in(shape_.empty_one_in)) {
    if (prng.one_in(2)) flush(io, disk);  // Then what is emptied was durably mapped.
    return empty_all(io, which, disk);
  }
  if (prng.one_in(shape_.flush_one_in)) return flush(io, disk);
  // Mostly whole grains; sometimes sectors.
  uint64_t first = prng.below(spot_grains) * kGrainSectors;
  uint64_t count = (1 + prng.below(spot_grains - first / kGrainSectors)) * kGrainSectors;
  if (prng.one_in(3)) {
    first += prng.below(kGrainSectors);
    count = 1 + prng.below(std::min<uint64_t>(count, 12));
    count = std::min(count, spot_grains * kGrainSectors - first);
  }
  const Range range{base * kGrainBytes + first * kSectorBytes, count * kSectorBytes};
  const Kind what = kind == 1 || kind == 2 ? Kind::discard : kind == 3 ? Kind::zero : Kind::write;
  request(io, disk, what, range, prng.one_in(shape_.flush_one_in * 2));
}

// One request, with the model told before and after.
void Trial::request(Io& io, BlockDevice& disk, Kind kind, Range range, bool fua) {
  const bool discards = kind == Kind::discard;
  const Stamp stamp = kind == Kind::write ? next_stamp_++ : 0;
  const uint64_t count = range.length / kSectorBytes;
  std::vector<uint64_t> touched;
  for (uint64_t grain = range.at / kGrainBytes; grain * kGrainBytes < range.end(); ++grain) {
    Content content = model_.newest(grain);
    const bool whole = range.at <= grain * kGrainBytes && (grain + 1) * kGrainBytes <= range.end();
    if (discards && !whole) continue;
    for (uint64_t i = 0; i < kGrainSectors; ++i) {
      const uint64_t at = grain * kGrainBytes + i * kSectorBytes;
      if (at >= range.at && at < range.end()) content[i] = stamp;
    }
    model_.begin(grain, content);
    touched.push_back(grain);
  }
  Result<void> done;
  if (discards) {
    done = disk.discard(io, range);
  } else if (stamp == 0) {
    done = disk.zero(io, range, {.fua = fua});
  } else {
    AlignedBuffer data(range.length);
    for (uint64_t i = 0; i < count; ++i) {
      fill_sector(data.bytes().subspan(i * kSectorBytes, kSectorBytes), range.at / kSectorBytes + i,
                  stamp);
    }
    const ::iovec slice = slice_of(data.bytes());
    done = disk.write(io, range, Iovec(&slice, 1), {.fua = fua});
  }
  CHECK(done || expect_errors_, "seed {}: {}", seed_, text_of(done.error()));
  for (const uint64_t grain : touched) model_.end(grain, done.has_value());
  if (done && fua && !discards) {
    DiskModel::Cover cover;
    for (const uint64_t grain : touched) cover[grain] = model_.grains().at(grain).completed;
    model_.raise(cover);
    mark();
  }
}

void Trial::client(Io& io, uint64_t which, BlockDevice& disk) {
  Prng prng(seed_ * 31 + which);
  for (uint64_t i = 0; i < shape_.steps; ++i) {
    one_request(io, which, disk, prng);
    if (prng.one_in(4)) io.sleep(std::chrono::microseconds(prng.below(2000)));
    if (shape_.background && prng.one_in(40)) io.sleep(std::chrono::milliseconds(350));
  }
}

// Disks come, go and grow meanwhile. Each step is acknowledged, or has two possible outcomes.
class CatalogDriver {
 public:
  CatalogDriver(disk::Disks& disks, uint64_t seed) : disks_(disks), prng_(seed) {}
  disk::Disks& disks_;
  Prng prng_;
};

void Trial::catalog_client(Io& io, CatalogDriver& driver) {
  uint64_t size = kMiB;
  for (uint64_t i = 0; i < shape_.steps / 6; ++i) {
    io.sleep(std::chrono::microseconds(driver.prng_.below(4000)));
    if (driver.prng_.one_in(2)) {
      const bool there = now_.extra_after;
      // From now on either is possible: before stands for "may be other".
      now_.extra_before = true;
      mark();
      const auto done =
          there ? driver.disks_.remove(io, "extra") : driver.disks_.create(io, "extra", kGiB);
      CHECK(done || expect_errors_, "{}", text_of(done.error()));
      if (done) {
        now_.extra_after = !there;
        now_.extra_before = false;
      }
    } else {
      size = size == kMiB ? 3 * kMiB : kMiB;
      now_.sizes.push_back(size);
      mark();
      const auto done = driver.disks_.resize(io, "grow", size);
      CHECK(done || expect_errors_, "{}", text_of(done.error()));
      if (done) now_.sizes = {size};
    }
    mark();
  }
}

// Two storage blocks, both full and durable; one is emptied and at once written again, without a
// flush.
void Trial::recycle(Io& io, BlockDevice& disk) {
  const auto grains = [](uint64_t first, uint64_t count) {
    return Range{first * kGrainBytes, count * kGrainBytes};
  };
  for (uint64_t first = 0; first < 512; first += 64) {
    request(io, disk, Kind::write, grains(first, 64), false);
  }
  flush(io, disk);
  request(io, disk, Kind::discard, grains(0, 256), false);  // A whole block ...
  request(io, disk, Kind::write, grains(1000, 20), false);  // ... is wanted again.
  flush(io, disk);
  request(io, disk, Kind::write, grains(1100, 236), false);  // Full again.
  flush(io, disk);
  request(io, disk, Kind::discard, grains(300, 30), false);  // Single grains ...
  request(io, disk, Kind::write, grains(2000, 20), false);   // ... are wanted again.
  flush(io, disk);
}

uint64_t Trial::live(const sim::Fault* fault) {
  expect_errors_ = fault != nullptr;
  sim::SimIo io(world_, seed_, {.operations_max = 1'000'000});
  if (fault != nullptr) io.add_fault(*fault);
  io.run([&] {
    auto opened = store::Pool::open(io, kPool, settings_of(shape_, true));
    CHECK(opened || expect_errors_, "{}", text_of(opened.error()));
    if (!opened) return;
    auto pool = opened.take();
    auto disks = disk::Disks::open(io, *pool);
    CHECK(disks || expect_errors_, "{}", text_of(disks.error()));
    if (disks) {
      auto main = (*disks)->attach(io, "main");
      CHECK(main || expect_errors_);
      if (main) {
        CatalogDriver driver(**disks, seed_ + 5);
        if (shape_.recycle) recycle(io, **main);
        disk::CoalescedDevice gathered(io, **main, {.mode = policy::IoCoalesce::Mode::always});
        BlockDevice& device = shape_.coalesce ? gathered : **main;
        Group clients(io);
        for (uint64_t i = 0; i < shape_.clients; ++i) {
          io.spawn(clients, [this, &io, i, &device] { client(io, i, device); });
        }
        if (shape_.change_catalog) io.spawn(clients, [&] { catalog_client(io, driver); });
        clients.wait();
      }
    }
    if (disks) disks->reset();
    const Result<void> closed = pool->close(io);
    CHECK(closed || expect_errors_, "{}", text_of(closed.error()));
  });
  if (fault != nullptr) fault_struck_ = io.fault(0).struck > 0;
  operations_ = io.operations();
  return trace_ = io.trace_hash();
}

// --- judging

bool Trial::judge_content(Io& io, BlockDevice& disk, const Acknowledged& known,
                          const std::string& where, Verdict& verdict) {
  AlignedBuffer grain_bytes(kGrainBytes);
  for (const auto& [grain, history] : model_.grains()) {
    const ::iovec slice = slice_of(grain_bytes.bytes());
    const auto got = disk.read(io, {grain * kGrainBytes, kGrainBytes}, Iovec(&slice, 1));
    if (!got) {
      verdict.violations.push_back(
          fmt::format("{}: grain {}: {}", where, grain, text_of(got.error())));
      return false;
    }
    Content shown;
    for (uint64_t i = 0; i < kGrainSectors; ++i) {
      shown[i] = stamp_of(View(grain_bytes.bytes()).subspan(i * kSectorBytes, kSectorBytes),
                          grain * kGrainSectors + i);
    }
    const auto floor = known.floors.find(grain);
    const size_t least = floor == known.floors.end() ? 0 : floor->second;
    if (model_.allows(grain, least, shown)) continue;
    verdict.violations.push_back(
        fmt::format("{}: grain {} shows {} {} {} {}.., its floor is version {} of {}: {}", where,
                    grain, shown[0], shown[1], shown[2], shown[3], least, history.versions.size(),
                    history.versions[least][0]));
    return false;
  }
  return true;
}

bool Trial::judge(sim::World& image, const Acknowledged& known, const std::string& where,
                  Verdict& verdict) {
  bool good = true;
  const auto wrong = [&](std::string what) {
    if (verdict.violations.size() < 10)
      verdict.violations.push_back(where + ": " + std::move(what));
    good = false;
  };
  sim::SimIo io(image, 1, {.order = sim::Order::immediate});
  io.run([&] {
    auto opened = store::Pool::open(io, kPool, settings_of(shape_, false));
    if (!opened) return wrong(std::string(text_of(opened.error())));
    auto pool = opened.take();
    auto found = disk::Disks::open(io, *pool);
    if (!found) return wrong(std::string(text_of(found.error())));
    auto disks = found.take();
    const auto report = disks->check(io, false);
    if (!report) return wrong(std::string(text_of(report.error())));
    if (!report->clean()) wrong("check: " + report->findings.front());
    const bool extra = disks->info("extra").has_value();
    if (extra != known.extra_after && !known.extra_before) {
      wrong(fmt::format("disk 'extra' is {}", extra ? "there" : "gone"));
    }
    const auto grow = disks->info("grow");
    if (!grow || std::ranges::find(known.sizes, grow->bytes) == known.sizes.end()) {
      wrong(fmt::format("disk 'grow' has {} bytes", grow ? grow->bytes : 0));
    }
    auto main = disks->attach(io, "main");
    if (!main) {
      wrong(std::string(text_of(main.error())));
    } else {
      good = judge_content(io, **main, known, where, verdict) && good;
    }
    main = std::shared_ptr<BlockDevice>();
    disks.reset();
    const auto closed = pool->close(io);
    if (!closed) wrong(std::string(text_of(closed.error())));
  });
  return good;
}

// Recovery may be cut short as well: crash it anywhere, and judge what the second recovery makes of
// it.
void Trial::crash_recovery(sim::World image, const Acknowledged& known, const std::string& where,
                           uint64_t seed, Verdict& verdict) {
  image.record(true);
  image.settle();
  {
    sim::SimIo io(image, seed, {});
    io.run([&] {
      auto pool = store::Pool::open(io, kPool, settings_of(shape_, false));
      if (!pool) return;
      auto disks = disk::Disks::open(io, **pool);
      if (disks) disks->reset();
      if (!(*pool)->close(io)) return;
    });
  }
  sim::Crash crash(image);
  for (const size_t moment : crash.moments()) {
    crash.move_to(moment);
    const sim::Fate fate = crash.random_fate(seed + moment);
    sim::World second = crash.image(fate);
    ++verdict.recoveries_crashed;
    if (!judge(second, known, fmt::format("{}, recovery crashed at {}", where, moment), verdict))
      return;
  }
}

void Trial::enumerate(Verdict& verdict, size_t budget, uint64_t states_max) {
  sim::Crash crash(world_);
  std::unordered_set<uint64_t> seen;
  Prng prng(seed_ ^ 0x5eed);
  const uint64_t before = verdict.crash_states;
  // Every moment while the budget lasts, else moments drawn evenly from the whole life: space and
  // slots are recycled late in it.
  const std::vector<size_t> moments = crash.moments();
  const uint64_t wanted = std::max<uint64_t>(1, states_max / budget);
  for (const size_t moment : moments) {
    if (prng.below(moments.size()) >= wanted) continue;
    crash.move_to(moment);
    ++verdict.moments;
    const uint64_t mark = crash.last_mark();
    for (const sim::Fate& fate : crash.fates(budget, seed_ + moment)) {
      if (!seen.insert(crash.key(fate) ^ (mark * 0x9e3779b97f4a7c15ULL)).second) continue;
      sim::World image = crash.image(fate);
      ++verdict.crash_states;
      const std::string where = fmt::format("seed {} {}", seed_, crash.describe(fate));
      const sim::World untouched = prng.one_in(200) ? image : sim::World();
      const bool again = !untouched.now().files.empty();
      if (!judge(image, acknowledged_[mark], where, verdict)) return;
      if (again) crash_recovery(untouched, acknowledged_[mark], where, seed_ + moment, verdict);
      if (!verdict.good() || verdict.crash_states - before >= states_max) return;
    }
  }
}

void Trial::judge_end(Verdict& verdict) {
  sim::World image{world_.now()};
  judge(image, acknowledged_.back(), fmt::format("seed {} at the end", seed_), verdict);
}

}  // namespace firn::proof
