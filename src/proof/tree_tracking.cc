// SPDX-License-Identifier: Apache-2.0
// Change tracking in the trial of trees, and shrinks.
//
// Notes on the design
//
// The model is what a backup does: somebody holds an event, reads the disk, and from then on asks
// what changed since. So whatever the disk shows otherwise, after a crash too, must be told to him:
// also when the crash took back what he had read. What he may be told beyond that is known exactly
// while nothing was killed: blocks that some request touched which was under way at the event or
// began later, and what the disk grew by.
//
// While clients write, a block of a request that is under way when the question is asked may be
// told or not: nobody was promised anything about it yet.
#include <algorithm>

#include "disk/changes.h"
#include "proof/tree_trial.h"

namespace firn::proof {
namespace {

constexpr uint64_t kBlock = 64 * kKiB;
constexpr size_t kEventsKept = 5;

// Byte ranges in order; what a bitmap over NBD and a list have in common.
struct Runs final : disk::ChangeSink {
  std::vector<Range> runs;
  bool add(Range run) override {
    runs.push_back(run);
    return true;
  }
};

bool covers(const std::vector<Range>& runs, uint64_t at) {
  const auto after = std::ranges::upper_bound(runs, at, {}, &Range::at);
  return after != runs.begin() && at < std::prev(after)->end();
}

}  // namespace

void TreeTrial::Event::touch(Range range) const {
  for (uint64_t at = round_down(range.at, kBlock); at < range.end(); at += kBlock) {
    touched.insert(at / kBlock);
  }
}

// Told to everybody who asks since an event of the disk.
void TreeTrial::touch(const Live& live, Range range) {
  for (const Asked& asked : live.asked) asked.event->touch(range);
  for (const auto& [app, event] : live.last) event->touch(range);
  if (live.beginning) live.beginning->touch(range);
}

// --- what must be told, and what may

std::string TreeTrial::unfit(const Event& event, const Told& told, const Contents& shown,
                             const std::set<uint64_t>& spared, bool exact) const {
  for (const uint64_t grain : universe_) {
    const uint64_t at = grain * kGrainBytes;
    if (shown.at(grain) == event.copy.at(grain) || covers(told.runs, at)) continue;
    if (spared.contains(at / kBlock)) continue;
    return fmt::format("grain {} shows {}, the copy of event {} has {}, and it is not told", grain,
                       shown.at(grain)[0], event.id, event.copy.at(grain)[0]);
  }
  for (uint64_t at = event.bytes; at < told.bytes; at += kBlock) {
    if (!covers(told.runs, at)) {
      return fmt::format("byte {} was added after event {}, and is not told", at, event.id);
    }
  }
  for (const Range& run : told.runs) {
    for (uint64_t at = run.at; exact && at < run.end(); at += kBlock) {
      if (at >= event.bytes_least || event.touched.contains(at / kBlock)) continue;
      return fmt::format("block {} is told since event {}, and nobody touched it", at / kBlock,
                         event.id);
    }
  }
  return {};
}

// One question. Empty: the answer is right.
std::string TreeTrial::ask(Io& io, disk::Disks& disks, const std::string& disk, const Asked& asked,
                           const std::function<std::string(const Told&)>& check) const {
  const uint64_t before = disks.info(disk)->bytes;
  const auto list = disks.tracking().list(io, disk, asked.event->id, 0, disk::kChangeExtentsMax);
  if (!list) {
    const bool may = asked.standing != Standing::good && list.error().code == Errc::invalid;
    return may || expect_errors_ ? "" : std::string(text_of(list.error()));
  }
  if (asked.standing == Standing::refused) {
    return fmt::format("event {} is of a content that was left, and is answered", asked.event->id);
  }
  const uint64_t after = disks.info(disk)->bytes;  // It may be resized meanwhile.
  if (list->block_bytes != kBlock || (list->disk_bytes != before && list->disk_bytes != after)) {
    return fmt::format("the list is of {} bytes in blocks of {}", list->disk_bytes,
                       list->block_bytes);
  }
  return check({list->extents, list->disk_bytes});
}

std::string TreeTrial::judge_asked(Io& io, disk::Disks& disks, const std::string& disk,
                                   const Expected& expected, const Contents& shown,
                                   bool exact) const {
  for (const Asked& asked : expected.asked) {
    const std::string wrong = ask(io, disks, disk, asked, [&](const Told& told) {
      return unfit(*asked.event, told, shown, {}, exact);
    });
    if (!wrong.empty()) return "changes: " + wrong;
  }
  return {};
}

// What came out of a crash is told after the next event as before it.
std::string TreeTrial::judge_next_event(Io& io, disk::Disks& disks, const State& known) const {
  const auto expected = known.find("main");
  if (expected == known.end() || expected->second->asked.empty() || !disks.info("main")) return {};
  const auto begun = disks.tracking().begin(io, "main", "later", "");
  if (!begun) return "an event after the crash: " + std::string(text_of(begun.error()));
  const auto shown = read_name(io, disks, "main");
  if (!shown) return std::string(text_of(shown.error()));
  const std::string wrong = judge_asked(io, disks, "main", *expected->second, *shown, false);
  return wrong.empty() ? "" : "after the next event: " + wrong;
}

// --- verbs

bool TreeTrial::begin(const std::string& disk, const std::string& app,
                      const std::string& snapshot) {
  Live& live = live_.at(disk);
  const auto event = std::make_shared<Event>();
  touch_flights(live, *event);
  live.beginning = event;
  std::string previous;
  const auto act = [&]() -> Result<void> {
    const disk::BegunInfo info = TRY(disks_->tracking().begin(*io_, disk, app, snapshot));
    event->id = info.change_id;
    previous = info.previous;
    return ok;
  };
  const bool done = snapshot.empty() ? !failed(act()) : freeze(disk, snapshot, act);
  const auto copy = done ? read_name(*io_, *disks_, disk) : Result<Contents>(Contents());
  live.beginning.reset();
  CHECK(copy || expect_errors_, "seed {}: {}", seed_, text_of(copy.error()));
  if (!done || !copy) return false;
  event->copy = *copy;
  event->bytes = event->bytes_least = disks_->info(disk)->bytes;
  const auto before = std::exchange(live.last[app], event);
  if (!snapshot.empty()) compare_view(disk + "@" + snapshot, app, before, previous);
  live.asked.push_back({event, Standing::good});
  if (live.asked.size() > kEventsKept) live.asked.erase(live.asked.begin());
  expect_disk(disk);
  ++asked_.events;
  return true;
}

// What a backup from the snapshot copies: since the application's last event, up to this one.
void TreeTrial::compare_view(const std::string& full, const std::string& app,
                             const std::shared_ptr<Event>& before, const std::string& previous) {
  if (before != nullptr && before->unsure && !before->left) return;
  const bool expected = before != nullptr && !before->left;
  if (!expect_errors_ && previous != (expected ? before->id : "")) {
    wrongs_.push_back(fmt::format("'{}' begins after event '{}'", app, previous));
  }
  const auto views = disks_->tracking().views(*io_, full);
  CHECK(views || expect_errors_, "seed {}: {}", seed_, text_of(views.error()));
  if (!views || !expected || expect_errors_) return;
  if (views->size() != 1 || (*views)[0].application != app) {
    return wrongs_.push_back(fmt::format("{} has {} views", full, views->size()));
  }
  Runs runs;
  const uint64_t bytes =
      disks_->snapshot_info(full.substr(0, full.find('@')), full.substr(full.find('@') + 1))->bytes;
  const auto done = (*views)[0].view->changed(*io_, {0, bytes}, runs);
  CHECK(done, "seed {}: {}", seed_, text_of(done.error()));
  const std::string wrong = unfit(*before, {runs.runs, bytes}, exact_.at(full), {}, exact_told_);
  if (!wrong.empty()) wrongs_.push_back(fmt::format("the view of {}: {}", full, wrong));
}

// Everybody asks, and compares with what he reads.
void TreeTrial::list(const std::string& disk) {
  const Live& live = live_.at(disk);
  const std::vector<Asked> all = live.asked;
  const auto shown = read_name(*io_, *disks_, disk);
  CHECK(shown || expect_errors_, "seed {}: {}", seed_, text_of(shown.error()));
  for (size_t i = 0; shown && i < all.size(); ++i) {
    Event under_way;
    touch_flights(live, under_way);
    const std::string wrong = ask(*io_, *disks_, disk, all[i], [&](const Told& told) {
      return unfit(*all[i].event, told, *shown, under_way.touched, exact_told_ && !expect_errors_);
    });
    ++asked_.lists;
    const auto now = std::ranges::find(live.asked, all[i].event, &Asked::event);
    if (now == live.asked.end() || now->standing != all[i].standing) continue;  // Reverted.
    if (!wrong.empty()) wrongs_.push_back(fmt::format("changes of {}: {}", disk, wrong));
  }
}

// Its events so far: of a content that is being left, or was.
void TreeTrial::set_standing(const std::string& disk, Standing standing) {
  Live& live = live_.at(disk);
  for (Asked& asked : live.asked) {
    if (asked.standing != Standing::refused) asked.standing = standing;
  }
  for (const auto& [app, event] : live.last) {
    (standing == Standing::refused ? event->left : event->unsure) = true;
  }
}

bool TreeTrial::untrack(const std::string& disk) {
  set_standing(disk, Standing::doubtful);
  expect_disk(disk);
  if (failed(disks_->tracking().off(*io_, disk))) return false;
  set_standing(disk, Standing::refused);
  live_.at(disk).last.clear();
  expect_disk(disk);
  return true;
}

bool TreeTrial::resize(const std::string& disk, uint64_t bytes) {
  for (const Asked& asked : live_.at(disk).asked) {
    asked.event->bytes_least = std::min(asked.event->bytes_least, bytes);
  }
  return !failed(disks_->resize(*io_, disk, bytes));
}

bool TreeTrial::shrink(const std::string& disk) {
  const auto done = disks_->shrink(*io_, disk);
  if (failed(done ? Result<void>() : Result<void>(done.error()))) return false;
  shrunk_.moved_bytes += done->moved_bytes;
  shrunk_.emptied_bytes += done->emptied_bytes;
  return true;
}

}  // namespace firn::proof
