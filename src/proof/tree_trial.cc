// SPDX-License-Identifier: Apache-2.0
// Verbs and their model, and the judging; the random life is in tree_life.cc.
//
// Notes on the design
//
// A revert under running clients makes a second candidate: the history that begins with the
// snapshot. A request that overlaps the call may land in either layer; to the new candidate it is a
// request that failed, so whatever it did or did not do is allowed, for each sector. What is begun
// after the call has one candidate left.
#include "proof/tree_trial.h"

#include <algorithm>
#include <unordered_set>

#include "base/aligned.h"
#include "base/log.h"
#include "store/pool.h"

namespace firn::proof {
namespace {

constexpr const char* kPool = "/pool";
constexpr uint64_t kLeafGrains = 512;

store::PoolSettings settings_of(bool background) {
  store::PoolSettings settings;
  settings.cache_bytes = 48 * kPageBytes;  // Small: eviction is part of life.
  settings.background = background;
  settings.ready_low_bytes = 2 * kBlockBytes;
  settings.ready_high_bytes = 4 * kBlockBytes;
  return settings;
}

}  // namespace

// A request under way, in every history that it may be part of.
struct TreeTrial::Flight {
  struct Part {
    std::shared_ptr<DiskModel> model;
    bool certain = true;  // It is done there when it returns.
  };
  Kind kind;
  Range range;
  Stamp stamp;
  std::vector<uint64_t> grains{};
  std::vector<Part> parts{};

  void begin(const std::shared_ptr<DiskModel>& model, bool certain) {
    parts.push_back({model, certain});
    grains.clear();
    for (uint64_t grain = range.at / kGrainBytes; grain * kGrainBytes < range.end(); ++grain) {
      Content content = model->newest(grain);
      const bool whole =
          range.at <= grain * kGrainBytes && (grain + 1) * kGrainBytes <= range.end();
      if (kind == Kind::discard && !whole) continue;
      for (uint64_t i = 0; i < kGrainSectors; ++i) {
        const uint64_t at = grain * kGrainBytes + i * kSectorBytes;
        if (at >= range.at && at < range.end()) content[i] = stamp;
      }
      model->begin(grain, content);
      grains.push_back(grain);
    }
  }
  void end(bool succeeded) {
    for (const Part& part : parts) {
      for (const uint64_t grain : grains) part.model->end(grain, succeeded && part.certain);
    }
  }
  void durable() {
    for (const Part& part : parts) {
      if (!part.certain) continue;
      DiskModel::Cover cover;
      for (const uint64_t grain : grains) cover[grain] = part.model->grains().at(grain).completed;
      part.model->raise(cover);
    }
  }
};

TreeTrial::TreeTrial(uint64_t seed, TreeShape shape) : seed_(seed), shape_(shape) {
  set_log_sink([](LogLevel, std::string_view) {});
  for (uint64_t which = 0; which < shape_.clients; ++which) {
    for (uint64_t spot = 0; spot < std::size(kLeaves); ++spot) {
      for (uint64_t i = 0; i < shape_.spot_grains; ++i) {
        universe_.push_back(grain_of(which, spot) + i);
      }
    }
  }
  std::ranges::sort(universe_);
  sim::SimIo io(world_, seed_, {.order = sim::Order::immediate});
  io.run([&] {
    const auto made = store::Pool::create(io, kPool,
                                          {.bytes = shape_.pool_blocks * kBlockBytes,
                                           .journal_bytes = shape_.journal_bytes,
                                           .journal_slot_bytes = kKiB});
    CHECK(made, "{}", text_of(made.error()));
    with_pool(io, false, [&] {
      leave_junk();
      CHECK(disks_->create(io, "main", kDiskBytes));
      if (shape_.append) CHECK(disks_->set(io, "main", "placement", "append"));
    });
  });
  world_.settle();
  live_["main"].candidates = {{std::make_shared<DiskModel>()}};
  expect_disk("main");
}

uint64_t TreeTrial::grain_of(uint64_t which, uint64_t spot) const {
  return kLeaves[spot] * kLeafGrains + which * kClientApart;
}

// As Trial's: a grain mapped before its data is durable shows somebody else's bytes.
void TreeTrial::leave_junk() {
  CHECK(disks_->create(*io_, "junk", shape_.pool_blocks * kBlockBytes));
  auto junk = disks_->attach(*io_, "junk").take();
  AlignedBuffer bytes(kBlockBytes);
  std::memset(bytes.data(), 0xee, bytes.size());
  const ::iovec slice = slice_of(bytes.bytes());
  for (uint64_t block = 0; block < shape_.pool_blocks; ++block) {
    CHECK(junk->write(*io_, {block * kBlockBytes, kBlockBytes}, Iovec(&slice, 1), {}));
  }
  junk.reset();
  CHECK(disks_->remove(*io_, "junk"));
}

void TreeTrial::with_pool(Io& io, bool background, const std::function<void()>& what) {
  auto opened = store::Pool::open(io, kPool, settings_of(background));
  CHECK(opened || expect_errors_, "{}", text_of(opened.error()));
  if (!opened) return;
  auto pool = opened.take();
  auto disks = disk::Disks::open(io, *pool);
  CHECK(disks || expect_errors_, "{}", text_of(disks.error()));
  if (disks) {
    io_ = &io;
    pool_ = pool.get();
    disks_ = disks->get();
    what();
    const disk::JobCounters done = disks_->job_counters();
    jobs_done_.consolidated += done.consolidated;
    jobs_done_.dropped += done.dropped;
    jobs_done_.moved_bytes += done.moved_bytes;
    if (seed_ % 3 != 0 || !background) {  // Else it ends as if it were killed, for the tracking.
      const Result<void> ended = disks_->close(io);
      CHECK(ended || expect_errors_, "{}", text_of(ended.error()));
    } else {
      exact_told_ = false;
    }
    disks->reset();
    io_ = nullptr;
    pool_ = nullptr;
    disks_ = nullptr;
  }
  const Result<void> closed = pool->close(io);
  CHECK(closed || expect_errors_, "{}", text_of(closed.error()));
}

void TreeTrial::prepare(const Script& script) {
  sim::SimIo io(world_, seed_, {.order = sim::Order::immediate});
  io.run([&] { with_pool(io, false, [&] { script(*this); }); });
  world_.settle();
  acknowledged_.clear();
  for (auto& [disk, live] : live_) {  // Closed: all of it is durable.
    for (const Candidate& candidate : live.candidates) {
      candidate.model->raise(candidate.model->heads());
    }
    expect_disk(disk);
  }
}

uint64_t TreeTrial::live(const sim::Fault* fault, const Script* script) {
  expect_errors_ = fault != nullptr;
  jobs_done_ = {};
  sim::SimIo io(world_, seed_, {.operations_max = 1'000'000});
  if (fault != nullptr) io.add_fault(*fault);
  io.run([&] {
    if (script != nullptr) return with_pool(io, false, [&] { (*script)(*this); });
    for (uint64_t round = 0; round < shape_.rounds; ++round) {
      with_pool(io, shape_.background, [&] { random_life(round); });
    }
  });
  if (fault != nullptr) fault_struck_ = io.fault(0).struck > 0;
  operations_ = io.operations();
  return io.trace_hash();
}

// --- the model

void TreeTrial::mark() {
  world_.mark(acknowledged_.size());
  acknowledged_.push_back(now_);
}

void TreeTrial::expect(const std::string& name, Expected expected) {
  now_[name] = std::make_shared<const Expected>(std::move(expected));
  mark();
}

void TreeTrial::expect_disk(const std::string& disk, bool maybe_gone) {
  Expected expected{maybe_gone, {}};
  for (const Candidate& candidate : live_.at(disk).candidates) {
    expected.ways.push_back(
        {candidate.model, std::make_shared<DiskModel::Cover>(candidate.model->floors()), nullptr});
  }
  expected.asked = live_.at(disk).asked;
  expect(disk, std::move(expected));
}

void TreeTrial::expect_exact(const std::string& name, const Contents& contents, bool maybe_gone) {
  expect(name, {maybe_gone, {{std::make_shared<DiskModel>(contents), nullptr, nullptr}}});
}

std::vector<std::string> TreeTrial::snapshots_of(const std::string& disk) const {
  std::vector<std::string> found;
  for (const auto& [name, expected] : now_) {
    if (name.starts_with(disk + "@")) found.push_back(name);
  }
  return found;
}

// A full pool is part of life; anything else is only to be expected when calls were made to fail.
bool TreeTrial::failed(const Result<void>& done) {
  CHECK(done || expect_errors_ || done.error().code == Errc::no_space, "seed {}: {}", seed_,
        text_of(done.error()));
  return !done;
}

// --- requests

Result<void> TreeTrial::act(BlockDevice& device, Kind kind, Range range, Stamp stamp, bool fua) {
  if (kind == Kind::discard) return device.discard(*io_, range);
  if (kind == Kind::zero) return device.zero(*io_, range, {.fua = fua});
  AlignedBuffer data(range.length);
  for (uint64_t i = 0; i < range.length / kSectorBytes; ++i) {
    fill_sector(data.bytes().subspan(i * kSectorBytes, kSectorBytes), range.at / kSectorBytes + i,
                stamp);
  }
  const ::iovec slice = slice_of(data.bytes());
  return device.write(*io_, range, Iovec(&slice, 1), {.fua = fua});
}

void TreeTrial::request(const std::string& disk, BlockDevice& device, Kind kind, Range range,
                        bool fua) {
  Live& live = live_.at(disk);
  Flight flight{kind, range, kind == Kind::write ? next_stamp_++ : 0};
  for (const Candidate& candidate : live.candidates) {
    flight.begin(candidate.model, !candidate.unsettled);
  }
  touch(live, range);
  live.flights.insert(&flight);
  const Result<void> done = act(device, kind, range, flight.stamp, fua);
  live.flights.erase(&flight);
  flight.end(!failed(done));
  if (!done || !fua || kind == Kind::discard) return;
  flight.durable();
  expect_disk(disk);
}

void TreeTrial::touch_flights(const Live& live, const Event& event) {
  for (const Flight* const flight : live.flights) event.touch(flight->range);
}

void TreeTrial::flush_device(const std::string& disk, BlockDevice& device) {
  std::vector<std::pair<std::shared_ptr<DiskModel>, DiskModel::Cover>> covers;
  for (const Candidate& candidate : live_.at(disk).candidates) {
    covers.emplace_back(candidate.model, candidate.model->cover());
  }
  if (failed(device.flush(*io_))) return;
  for (const auto& [model, cover] : covers) model->raise(cover);
  expect_disk(disk);
}

void TreeTrial::write(const std::string& disk, uint64_t grain, uint64_t count) {
  auto device = disks_->attach(*io_, disk).take();
  request(disk, *device, Kind::write, {grain * kGrainBytes, count * kGrainBytes}, false);
}
void TreeTrial::discard(const std::string& disk, uint64_t grain, uint64_t count) {
  auto device = disks_->attach(*io_, disk).take();
  request(disk, *device, Kind::discard, {grain * kGrainBytes, count * kGrainBytes}, false);
}
void TreeTrial::flush(const std::string& disk) {
  auto device = disks_->attach(*io_, disk).take();
  flush_device(disk, *device);
}

// --- the tree

bool TreeTrial::snapshot(const std::string& disk, const std::string& name) {
  return freeze(disk, name, [&] { return disks_->snapshot(*io_, disk, name); });
}

// Made, and read once: from then on it shows exactly that.
bool TreeTrial::freeze(const std::string& disk, const std::string& name,
                       const std::function<Result<void>()>& act) {
  const std::string full = disk + "@" + name;
  Expected expected{true, {}};
  std::vector<std::shared_ptr<DiskModel>> models;
  for (const Candidate& candidate : live_.at(disk).candidates) {
    models.push_back(candidate.model);
    expected.ways.push_back(
        {candidate.model, std::make_shared<DiskModel::Cover>(candidate.model->cover()), nullptr});
  }
  expect(full, expected);
  if (failed(act())) {
    doubtful_.insert(full);
    return false;
  }
  expected.maybe_gone = false;
  for (size_t i = 0; i < models.size(); ++i) {
    expected.ways[i].caps = std::make_shared<DiskModel::Cover>(models[i]->heads());
  }
  expect(full, expected);
  return settle_snapshot(full);
}

bool TreeTrial::settle_snapshot(const std::string& full) {
  const auto shown = read_name(*io_, *disks_, full);
  CHECK(shown || expect_errors_, "seed {}: {}", seed_, text_of(shown.error()));
  if (!shown) {
    doubtful_.insert(full);
    return false;
  }
  const std::string wrong = refusal(*now_.at(full), *shown);
  if (!wrong.empty()) wrongs_.push_back(fmt::format("new snapshot {}: {}", full, wrong));
  exact_[full] = *shown;
  expect_exact(full, *shown, false);
  return true;
}

bool TreeTrial::unsnapshot(const std::string& disk, const std::string& name) {
  const std::string full = disk + "@" + name;
  expect_exact(full, exact_.at(full), true);
  if (failed(disks_->remove_snapshot(*io_, disk, name))) {
    doubtful_.insert(full);
    return false;
  }
  now_.erase(full);
  exact_.erase(full);
  mark();
  return true;
}

bool TreeTrial::clone(const std::string& disk, const std::string& name, const std::string& to) {
  const Contents& from = exact_.at(disk + "@" + name);
  live_[to].candidates = {{std::make_shared<DiskModel>(from)}};
  expect_disk(to, true);
  if (failed(disks_->clone(*io_, disk, name, to))) {
    doubtful_.insert(to);
    return false;
  }
  expect_disk(to);
  const auto parent = live_.find(disk);
  if (parent == live_.end() || parent->second.asked.empty()) return true;
  const std::string& id = parent->second.asked.back().event->id;
  if (disks_->tracking().list(*io_, to, id, 0, 1)) wrongs_.push_back(to + " answers for " + disk);
  return true;
}

bool TreeTrial::remove(const std::string& disk) {
  std::vector<std::string> names = snapshots_of(disk);
  for (const std::string& full : names) {
    Expected maybe = *now_.at(full);
    maybe.maybe_gone = true;
    expect(full, std::move(maybe));
  }
  expect_disk(disk, true);
  names.push_back(disk);
  if (failed(disks_->remove(*io_, disk, true))) {
    doubtful_.insert(names.begin(), names.end());
    return false;
  }
  for (const std::string& name : names) {
    now_.erase(name);
    exact_.erase(name);
  }
  live_.erase(disk);
  mark();
  return true;
}

bool TreeTrial::revert(const std::string& disk, const std::string& name) {
  Live& live = live_.at(disk);
  const auto model = std::make_shared<DiskModel>(exact_.at(disk + "@" + name));
  for (Flight* const flight : live.flights) flight->begin(model, false);
  live.candidates.push_back({model, true});
  set_standing(disk, Standing::doubtful);
  expect_disk(disk);
  const bool done = !failed(disks_->revert(*io_, disk, name, true));
  if (done) {
    live.candidates = {{model}};
    set_standing(disk, Standing::refused);
  } else {
    live.candidates.back().unsettled = false;  // One of them is the truth; each goes on alone.
  }
  expect_disk(disk);
  return done;
}

void TreeTrial::sweep() {
  const Result<void> done = disks_->sweep(*io_);
  CHECK(done || expect_errors_, "seed {}: {}", seed_, text_of(done.error()));
}

void TreeTrial::check_now() {
  const auto report = disks_->check(*io_, false);
  CHECK(report || expect_errors_, "seed {}: {}", seed_, text_of(report.error()));
  if (!report || report->clean() || expect_errors_) return;
  wrongs_.push_back("check while living: " + report->findings.front());
}

void TreeTrial::compare_snapshot(const std::string& full) {
  const auto shown = read_name(*io_, *disks_, full);
  CHECK(shown || expect_errors_, "seed {}: {}: {}", seed_, full, text_of(shown.error()));
  if (shown && *shown != exact_.at(full)) wrongs_.push_back(full + " has changed");
}

void TreeTrial::verify(const std::string& disk) {
  const auto shown = read_name(*io_, *disks_, disk);
  CHECK(shown || expect_errors_, "seed {}: {}", seed_, text_of(shown.error()));
  const Live& live = live_.at(disk);
  if (!shown || live.candidates.size() != 1 || !live.flights.empty()) return;
  for (const auto& [grain, content] : *shown) {
    if (content == live.candidates[0].model->newest(grain)) continue;
    return wrongs_.push_back(fmt::format("{} has lost a write to grain {}", disk, grain));
  }
}

void TreeTrial::look_at_all() {
  for (const auto& [full, contents] : exact_) {
    if (!doubtful_.contains(full)) compare_snapshot(full);
  }
  check_now();
}

void TreeTrial::compare_diff(const std::string& a, const std::string& b) {
  struct Sink final : disk::DiffSink {
    std::set<uint64_t> grains;
    bool add(disk::DiffRun run) override {
      for (uint64_t at = run.at; at < run.at + run.length; at += kGrainBytes) {
        grains.insert(at / kGrainBytes);
      }
      return true;
    }
  } sink;
  const auto done = disks_->diff(*io_, a, b, {0, kDiskBytes}, sink);
  CHECK(done || expect_errors_, "seed {}: {}", seed_, text_of(done.error()));
  if (!done) return;
  std::set<uint64_t> differ;
  for (const uint64_t grain : universe_) {
    if (exact_.at(a).at(grain) != exact_.at(b).at(grain)) differ.insert(grain);
  }
  if (differ != sink.grains) {
    wrongs_.push_back(fmt::format("diff {} {} names {} grains, {} differ", a, b, sink.grains.size(),
                                  differ.size()));
  }
}

// --- judging

// All of the universe; stretches of neighbours in one read.
Result<Contents> TreeTrial::read_all(Io& io, BlockDevice& device) const {
  Contents contents;
  for (size_t i = 0; i < universe_.size();) {
    size_t end = i + 1;
    while (end < universe_.size() && universe_[end] == universe_[end - 1] + 1) ++end;
    AlignedBuffer bytes((end - i) * kGrainBytes);
    const ::iovec slice = slice_of(bytes.bytes());
    TRY(device.read(io, {universe_[i] * kGrainBytes, bytes.size()}, Iovec(&slice, 1)));
    for (size_t at = 0; i < end; ++i, at += kGrainBytes) {
      Content& content = contents[universe_[i]];
      for (uint64_t sector = 0; sector < kGrainSectors; ++sector) {
        content[sector] =
            stamp_of(View(bytes.bytes()).subspan(at + sector * kSectorBytes, kSectorBytes),
                     universe_[i] * kGrainSectors + sector);
      }
    }
  }
  return contents;
}

Result<Contents> TreeTrial::read_name(Io& io, disk::Disks& disks, const std::string& name) const {
  const auto device = TRY(disks.attach(io, name));
  return read_all(io, *device);
}

// Why none of the ways allows it; empty when one does.
std::string TreeTrial::refusal(const Expected& expected, const Contents& shown) {
  std::string why;
  for (const Way& way : expected.ways) {
    const auto bound = [&](const std::shared_ptr<const DiskModel::Cover>& of, uint64_t grain,
                           size_t none) {
      if (of == nullptr) return none;
      const auto found = of->find(grain);
      return found == of->end() ? size_t{0} : found->second;
    };
    const auto wrong = std::ranges::find_if(shown, [&](const auto& each) {
      const auto& [grain, content] = each;
      return !way.model->allows(grain, bound(way.floors, grain, 0), content,
                                bound(way.caps, grain, SIZE_MAX));
    });
    if (wrong == shown.end()) return {};
    why += fmt::format(" grain {} shows {} {} .. {}, its floor is version {};", wrong->first,
                       wrong->second[0], wrong->second[1], wrong->second[7],
                       bound(way.floors, wrong->first, 0));
  }
  return why;
}

// Every name, every grain, every counter. What is wrong, or nothing.
std::string TreeTrial::judge_open(Io& io, store::Pool& pool, disk::Disks& disks, const State& known,
                                  bool swept, bool exact) {
  const auto report = disks.check(io, false);
  if (!report) return std::string(text_of(report.error()));
  if (!report->clean()) return "check: " + report->findings.front();
  std::set<std::string> there;
  for (const disk::DiskInfo& info : disks.list()) {
    there.insert(info.name);
    const auto snapshots = disks.snapshots(info.name);
    if (!snapshots) return std::string(text_of(snapshots.error()));
    for (const disk::SnapshotInfo& each : *snapshots) there.insert(info.name + "@" + each.name);
  }
  for (const auto& [name, expected] : known) {
    if (!expected->maybe_gone && !there.contains(name)) return name + " is gone";
  }
  std::set<std::pair<uint64_t, Content>> grains;  // Stamps are used once: as many as are mapped.
  for (const std::string& name : there) {
    const auto expected = known.find(name);
    if (expected == known.end()) return name + " is there";
    const auto shown = read_name(io, disks, name);
    if (!shown) return name + ": " + std::string(text_of(shown.error()));
    const std::string wrong = refusal(*expected->second, *shown);
    if (!wrong.empty()) return name + ":" + wrong;
    const std::string missed = judge_asked(io, disks, name, *expected->second, *shown, exact);
    if (!missed.empty()) return name + ": " + missed;
    for (const auto& each : *shown) {
      if (each.second != Content{}) grains.insert(each);
    }
  }
  if (!swept) return {};
  if (!disks.jobs().empty()) return "a job is left: " + disks.jobs().front().error;
  const uint64_t used = pool.info().used_bytes / kGrainBytes;
  const uint64_t hidden = report->layers - there.size();
  if (used < grains.size() || (hidden == 0 && used != grains.size())) {
    return fmt::format("{} grains are in use, {} are shown, {} layers are hidden", used,
                       grains.size(), hidden);
  }
  return {};
}

// Opened as the daemon would: judged before any job has gone on, and again when all are through.
bool TreeTrial::judge(sim::World& image, const State& known, const std::string& where,
                      Verdict& verdict, bool exact) {
  std::string wrong;
  // Another seed than the life's: what is drawn here was not drawn there.
  sim::SimIo io(image, ~seed_, {.order = sim::Order::immediate});
  io.run([&] {
    auto opened = store::Pool::open(io, kPool, settings_of(true));
    if (!opened) return void(wrong = text_of(opened.error()));
    auto pool = opened.take();
    auto found = disk::Disks::open(io, *pool);
    if (!found) return void(wrong = text_of(found.error()));
    auto disks = found.take();
    const bool pending = !disks->jobs().empty();
    wrong = judge_open(io, *pool, *disks, known, !pending, exact);
    if (wrong.empty() && pending) {
      const auto swept = disks->sweep(io);
      wrong = swept ? judge_open(io, *pool, *disks, known, true, exact)
                    : std::string(text_of(swept.error()));
      if (!wrong.empty()) wrong = "after the jobs: " + wrong;
    }
    if (wrong.empty() && verdict.crash_states % 4 == 0) {
      wrong = judge_next_event(io, *disks, known);
    }
    disks.reset();
    const auto closed = pool->close(io);
    if (!closed && wrong.empty()) wrong = text_of(closed.error());
  });
  if (!wrong.empty()) verdict.violations.push_back(where + ": " + wrong);
  return wrong.empty();
}

// The recovery goes on with the jobs, and is crashed at moments of all of that.
void TreeTrial::crash_recovery(sim::World image, const State& known, const std::string& where,
                               uint64_t seed, Verdict& verdict) {
  image.record(true);
  image.settle();
  {
    sim::SimIo io(image, seed, {});
    io.run([&] {
      auto pool = store::Pool::open(io, kPool, settings_of(false));
      if (!pool) return;
      auto disks = disk::Disks::open(io, **pool);  // Sweeps.
      if (disks) disks->reset();
      if (!(*pool)->close(io)) return;
    });
  }
  sim::Crash crash(image);
  const std::vector<size_t> moments = crash.moments();
  Prng prng(seed);
  for (const size_t moment : moments) {
    if (prng.below(moments.size()) >= 40) continue;
    crash.move_to(moment);
    sim::World second = crash.image(crash.random_fate(seed + moment));
    ++verdict.recoveries_crashed;
    if (!judge(second, known, fmt::format("{}, recovery crashed at {}", where, moment), verdict)) {
      return;
    }
  }
}

void TreeTrial::enumerate(Verdict& verdict, size_t budget, uint64_t states_max,
                          uint64_t again_one_in) {
  for (const std::string& wrong : wrongs_) {
    verdict.violations.push_back(fmt::format("seed {} while living: {}", seed_, wrong));
  }
  sim::Crash crash(world_);
  std::unordered_set<uint64_t> seen;
  Prng prng(seed_ ^ 0x5eed);
  const uint64_t before = verdict.crash_states;
  const std::vector<size_t> moments = crash.moments();
  const uint64_t wanted = std::max<uint64_t>(1, states_max / budget);
  for (const size_t moment : moments) {
    if (!verdict.good() || verdict.crash_states - before >= states_max) return;
    if (prng.below(moments.size()) >= wanted) continue;
    crash.move_to(moment);
    ++verdict.moments;
    const uint64_t mark = crash.last_mark();
    for (const sim::Fate& fate : crash.fates(budget, seed_ + moment)) {
      if (!seen.insert(crash.key(fate) ^ (mark * 0x9e3779b97f4a7c15ULL)).second) continue;
      sim::World image = crash.image(fate);
      ++verdict.crash_states;
      const std::string where = fmt::format("tree seed {} {}", seed_, crash.describe(fate));
      const sim::World untouched = prng.one_in(again_one_in) ? image : sim::World();
      const bool again = !untouched.now().files.empty();
      if (!judge(image, acknowledged_[mark], where, verdict)) return;
      if (again) crash_recovery(untouched, acknowledged_[mark], where, seed_ + moment, verdict);
      if (!verdict.good()) return;
    }
  }
}

void TreeTrial::judge_end(Verdict& verdict) {
  for (const std::string& wrong : wrongs_) {
    verdict.violations.push_back(fmt::format("seed {} while living: {}", seed_, wrong));
  }
  sim::World image{world_.now()};
  judge(image, acknowledged_.back(), fmt::format("tree seed {} at the end", seed_), verdict,
        exact_told_ && !expect_errors_);
}

}  // namespace firn::proof
