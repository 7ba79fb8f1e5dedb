// SPDX-License-Identifier: Apache-2.0
// The random life of a tree of layers: clients write to disk "main" while a driver makes, deletes,
// clones and reverts, backs up and shrinks, an asker asks what changed, and the sweeper takes out
// what has lost its name.
#include <algorithm>

#include "base/aligned.h"
#include "proof/tree_trial.h"

namespace firn::proof {

TreeShape TreeShape::of(uint64_t seed) {
  TreeShape shape;
  shape.clients = 1 + seed % 2;
  shape.journal_bytes = (seed % 3 == 0 ? 64 : 256) * kKiB;
  shape.background = seed % 7 != 0;
  shape.append = seed % 4 == 2;
  switch (seed % 5) {
    case 0:  // A deep chain.
      shape.ops = 20;
      shape.snapshots_max = 12;
      shape.weights = {.snapshot = 8,
                       .unsnapshot = 3,
                       .clone = 0,
                       .unclone = 0,
                       .burst = 0,
                       .revert = 1,
                       .look = 2};
      break;
    case 1:  // A wide fan of clones.
      shape.clones_max = 6;
      shape.snapshots_max = 4;
      shape.weights = {.snapshot = 3,
                       .unsnapshot = 3,
                       .clone = 6,
                       .unclone = 3,
                       .burst = 5,
                       .revert = 1,
                       .look = 1};
      break;
    case 2:  // Made and deleted at once, again and again.
      shape.ops = 24;
      shape.steps = 40;
      shape.weights = {.snapshot = 5,
                       .unsnapshot = 6,
                       .clone = 1,
                       .unclone = 1,
                       .burst = 1,
                       .revert = 2,
                       .look = 1};
      break;
    case 3:  // Little space: some of it fails.
      shape.pool_blocks = 5;
      break;
    default:
      break;
  }
  return shape;
}

void TreeTrial::one_request(uint64_t which, const std::string& disk, BlockDevice& device,
                            Prng& prng) {
  if (prng.one_in(shape_.flush_one_in)) return flush_device(disk, device);
  const uint64_t spot = prng.below(std::size(kLeaves));
  const uint64_t spot_grains = shape_.spot_grains;
  uint64_t first = prng.below(spot_grains) * kGrainSectors;
  uint64_t count = (1 + prng.below(spot_grains - first / kGrainSectors)) * kGrainSectors;
  const bool sectors = prng.one_in(4);
  if (sectors) {
    first += prng.below(kGrainSectors);
    count = 1 + prng.below(std::min<uint64_t>(count, 12));
    count = std::min(count, spot_grains * kGrainSectors - first);
  }
  // Sectors are not zeroed: two layers might come to the same content each in a grain of its own,
  // and grains in use are counted by what they hold.
  const uint64_t kind = prng.below(8);
  request(disk, device,
          kind == 0               ? Kind::discard
          : kind == 1 && !sectors ? Kind::zero
                                  : Kind::write,
          {grain_of(which, spot) * kGrainBytes + first * kSectorBytes, count * kSectorBytes},
          prng.one_in(shape_.flush_one_in * 2));
}

void TreeTrial::client(uint64_t which, BlockDevice& device, Prng prng) {
  for (uint64_t i = 0; i < shape_.steps / shape_.rounds; ++i) {
    one_request(which, "main", device, prng);
    if (prng.one_in(3)) io_->sleep(std::chrono::microseconds(prng.below(1500)));
  }
}

void TreeTrial::burst(const std::string& disk, Prng& prng) {
  auto device = disks_->attach(*io_, disk);
  CHECK(device || expect_errors_, "seed {}: {}", seed_, text_of(device.error()));
  if (!device) return;
  for (uint64_t i = 0; i < 4; ++i) one_request(prng.below(shape_.clients), disk, **device, prng);
}

// One change of the tree, among those that are possible.
void TreeTrial::tree_op(Prng& prng) {
  std::vector<std::string> snapshots, disks;
  for (const auto& [full, contents] : exact_) {
    if (!doubtful_.contains(full)) snapshots.push_back(full);
  }
  for (const auto& [name, live] : live_) {
    if (!doubtful_.contains(name)) disks.push_back(name);
  }
  const auto one_of = [&](const std::vector<std::string>& of) { return of[prng.below(of.size())]; };
  const TreeShape::Weights& w = shape_.weights;
  uint64_t pick = prng.below(w.snapshot + w.unsnapshot + w.clone + w.unclone + w.burst + w.revert +
                             w.look + w.begin + w.untrack + w.resize + w.shrink);
  const auto is = [&](uint64_t weight) {
    if (pick < weight) return true;
    pick -= weight;
    return false;
  };
  const std::string chosen = snapshots.empty() ? "" : one_of(snapshots);
  const size_t split = chosen.find('@');
  const std::string of = chosen.substr(0, split);
  const std::string name = snapshots.empty() ? "" : chosen.substr(split + 1);
  const std::string disk = prng.one_in(2) ? "main" : one_of(disks);
  if (is(w.snapshot)) {
    if (snapshots.size() < shape_.snapshots_max) {
      snapshot(disk, fmt::format("s{}", next_name_++));
    } else {
      unsnapshot(of, name);
    }
  } else if (is(w.unsnapshot)) {
    if (!snapshots.empty()) unsnapshot(of, name);
  } else if (is(w.clone)) {
    if (!snapshots.empty() && disks.size() <= shape_.clones_max) {
      const std::string to = fmt::format("c{}", next_name_++);
      if (clone(of, name, to)) burst(to, prng);  // It has a block of its own from now on.
    }
  } else if (is(w.unclone)) {
    if (disk != "main") remove(disk);
  } else if (is(w.burst)) {
    if (disk != "main") burst(disk, prng);
  } else if (is(w.revert)) {
    if (!snapshots.empty() && live_.contains(of) && !doubtful_.contains(of)) revert(of, name);
  } else if (is(w.begin)) {
    const bool room = snapshots.size() < shape_.snapshots_max;
    const char* const app = prng.one_in(2) ? "x" : "y";
    begin(disk, app, room && prng.one_in(2) ? fmt::format("b{}", next_name_++) : "");
  } else if (is(w.untrack)) {
    untrack(disk);
  } else if (is(w.resize)) {
    resize_somehow(disk, prng);
  } else if (is(w.shrink)) {
    shrink(disk);
  } else if (prng.one_in(2)) {
    check_now();
  } else if (!snapshots.empty()) {
    compare_snapshot(chosen);
    const std::string other = one_of(snapshots);
    compare_diff(chosen, other);
  }
}

// Live disks grow; one that nobody has may become smaller again.
void TreeTrial::resize_somehow(const std::string& disk, Prng& prng) {
  const uint64_t bytes = disks_->info(disk)->bytes;
  const bool may_shrink = disk != "main" && bytes > kDiskBytes && snapshots_of(disk).empty();
  resize(disk, may_shrink ? kDiskBytes : bytes + (1 + prng.below(5)) * 192 * kKiB);
}

// Beside the driver: a question may meet an event, a flush, a revert.
void TreeTrial::asker(Prng prng) {
  for (uint64_t i = 0; i < shape_.ops / shape_.rounds; ++i) {
    io_->sleep(std::chrono::microseconds(prng.below(2500)));
    list("main");
  }
}

void TreeTrial::driver(uint64_t round, Prng prng) {
  if (round > 0 && shape_.weights.shrink > 0) shrink("main");  // Nobody fills its blocks yet.
  for (uint64_t i = 0; i < shape_.ops / shape_.rounds; ++i) {
    io_->sleep(std::chrono::microseconds(prng.below(2500)));
    tree_op(prng);
    if (!shape_.background && prng.one_in(4)) sweep();
    if (shape_.background && prng.one_in(20)) io_->sleep(std::chrono::milliseconds(350));
    if (shape_.background && prng.one_in(40)) io_->sleep(std::chrono::seconds(6));  // Log flushed.
  }
}

void TreeTrial::random_life(uint64_t round) {
  auto main = disks_->attach(*io_, "main");
  CHECK(main || expect_errors_, "{}", text_of(main.error()));
  if (!main) return;
  Group group(*io_);
  for (uint64_t i = 0; i < shape_.clients; ++i) {
    io_->spawn(group, [this, i, &main, prng = Prng(seed_ * 31 + i + round * 1000)] {
      client(i, **main, prng);
    });
  }
  io_->spawn(group, [this, round] { driver(round, Prng(seed_ + 5 + round * 1000)); });
  if (shape_.weights.begin > 0)
    io_->spawn(group, [this, round] { asker(Prng(seed_ + 6 + round * 1000)); });
  group.wait();
}

}  // namespace firn::proof
