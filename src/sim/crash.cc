// SPDX-License-Identifier: Apache-2.0
// Notes on the design
//
// I1  durable_ holds exactly the changes covered by completed flushes, applied in order of
// completion. I2  pending_ is in the order of application: a change moves behind all completed ones
// when it completes,
//     and stays in front of those in flight.
// I3  Images share pages with durable_; whichever writes first makes the copy.
#include "sim/crash.h"

#include <algorithm>
#include <set>

#include "base/check.h"
#include "base/prng.h"

namespace firn::sim {
namespace {

uint64_t mix(uint64_t sum, uint64_t value) { return Prng(sum ^ value).next(); }

}  // namespace

Crash::Crash(const World& world, CrashOptions options)
    : world_(world), options_(std::move(options)) {
  restart();
}

void Crash::restart() {
  moment_ = 0;
  durable_ = world_.origin();
  durable_version_ = 0;
  pending_.clear();
  flush_begun_.clear();
  marks_.clear();
  atoms_known_ = false;
}

std::vector<size_t> Crash::moments() const {
  std::vector<size_t> all;
  const std::vector<Event>& log = world_.events();
  for (size_t i = 0; i < log.size(); ++i) {
    // What changes the set of possible images: the moment just before it ends a run.
    const EventKind kind = log[i].kind;
    if (kind == EventKind::issued || kind == EventKind::flush_completed ||
        kind == EventKind::failed) {
      all.push_back(i);
    }
  }
  all.push_back(log.size());
  return all;
}

void Crash::move_to(size_t moment) {
  CHECK(moment <= events(), "moment {} of {}", moment, events());
  if (moment < moment_) restart();
  // Files that were made since the log was last looked at.
  while (durable_.files.size() < world_.origin().files.size()) {
    durable_.files.push_back({world_.origin().files[durable_.files.size()].path, {}, {}});
  }
  while (moment_ < moment) step();
}

void Crash::step() {
  const Event& event = world_.events()[moment_];
  atoms_known_ = false;
  switch (event.kind) {
    case EventKind::issued:
      pending_.push_back({event.number, world_.change(event.number).length, SIZE_MAX});
      break;
    case EventKind::completed:
    case EventKind::failed: {
      const auto at = std::find_if(pending_.begin(), pending_.end(), [&](const Pending& each) {
        return each.change == event.number;
      });
      CHECK(at != pending_.end());
      Pending done = *at;
      done.completed = moment_;
      const bool write = world_.change(event.number).kind == ChangeKind::write;
      if (event.kind == EventKind::failed && write) done.length = event.length;
      pending_.erase(at);
      if (event.kind == EventKind::failed && event.length == 0) break;  // Nothing happened.
      const auto place = std::find_if(pending_.begin(), pending_.end(), [](const Pending& each) {
        return each.completed == SIZE_MAX;
      });
      pending_.insert(place, done);
      break;
    }
    case EventKind::flush_begun:
      if (flush_begun_.size() <= event.number) flush_begun_.resize(event.number + 1, SIZE_MAX);
      flush_begun_[event.number] = moment_;
      break;
    case EventKind::flush_completed:
      settle_flush(event.number);
      break;
    case EventKind::mark:
      marks_.push_back(event.number);
      break;
  }
  ++moment_;
}

bool Crash::covers(uint64_t flush, const Change& change) const {
  switch (change.kind) {
    case ChangeKind::write:
    case ChangeKind::punch:
    case ChangeKind::resize:
      return change.file == world_.events()[flush_begun_[flush]].file;
    case ChangeKind::create:
    case ChangeKind::remove:
    case ChangeKind::make_directory:
    case ChangeKind::link:
      return world_.events()[flush_begun_[flush]].file == kNoFile &&
             directory_of(change.path) == world_.flush_path(flush);
  }
  return false;
}

void Crash::settle_flush(uint64_t flush) {
  CHECK(flush < flush_begun_.size(), "the log begins in the middle of a flush");
  const size_t begun = flush_begun_[flush];
  size_t kept = 0;
  for (const Pending& each : pending_) {
    const Change& change = world_.change(each.change);
    if (each.completed < begun && covers(flush, change)) {
      durable_.apply_part(change, 0, each.length);
      durable_version_ = mix(durable_version_, each.change + 1);
    } else {
      pending_[kept++] = each;
    }
  }
  pending_.resize(kept);
}

uint32_t Crash::atom_bytes_of(FileId file) {
  if (atom_bytes_.size() <= file) atom_bytes_.resize(file + 1, 0);
  if (atom_bytes_[file] != 0) return atom_bytes_[file];
  atom_bytes_[file] = options_.atom_bytes;
  const std::string& path = world_.origin().files[file].path;
  const std::string last = path.substr(path.rfind('/') + 1);
  for (const CrashOptions::AtomRule& rule : options_.atoms) {
    if (!matches(rule.files, last)) continue;
    atom_bytes_[file] = rule.bytes;
    break;
  }
  return atom_bytes_[file];
}

const std::vector<Atom>& Crash::atoms() {
  if (std::exchange(atoms_known_, true)) return atoms_;
  atoms_.clear();
  for (const Pending& each : pending_) {
    const Change& change = world_.change(each.change);
    if (change.kind != ChangeKind::write) {
      atoms_.push_back({each.change, 0, 0});
      continue;
    }
    const uint64_t unit = atom_bytes_of(change.file);
    for (uint64_t skip = 0; skip < each.length;) {
      const uint64_t step = std::min(unit - (change.at + skip) % unit, each.length - skip);
      atoms_.push_back({each.change, skip, step});
      skip += step;
    }
  }
  return atoms_;
}

World Crash::image(const Fate& fate, bool record) {
  const std::vector<Atom>& all = atoms();
  State state = durable_;
  for (size_t i = 0; i < all.size();) {
    if (!fate.keeps(i)) {
      ++i;
      continue;
    }
    const Atom& first = all[i];
    const Change& change = world_.change(first.change);
    if (change.kind != ChangeKind::write) {
      state.apply(change);
      ++i;
      continue;
    }
    // Neighbours that survive together are one copy.
    uint64_t length = 0;
    bool torn = false;
    for (; i < all.size() && !torn && all[i].change == first.change && fate.keeps(i); ++i) {
      torn = static_cast<int64_t>(i) == fate.torn;
      length += torn ? fate.torn_bytes : all[i].length;
    }
    state.apply_part(change, first.skip, length);
  }
  World world(std::move(state));
  world.record(record);
  return world;
}

uint64_t Crash::key(const Fate& fate) {
  const std::vector<Atom>& all = atoms();
  uint64_t sum = 0;
  for (size_t i = 0; i < all.size(); ++i) {
    if (!fate.keeps(i)) continue;
    const uint64_t cut = static_cast<int64_t>(i) == fate.torn ? fate.torn_bytes + 1 : 0;
    sum += mix(mix(mix(1, all[i].change), all[i].skip), cut);
  }
  return mix(durable_version_, sum);
}

std::string Crash::describe(const Fate& fate) {
  const std::vector<Atom>& all = atoms();
  size_t count = 0;
  for (size_t i = 0; i < all.size(); ++i) count += fate.keeps(i) ? 1 : 0;
  std::string text = fmt::format("moment {}, last mark {}: keeps {} of {} atoms:", moment_,
                                 last_mark(), count, all.size());
  const bool name_lost = count * 2 > all.size();
  if (name_lost) text += " all but";
  size_t named = 0;
  for (size_t i = 0; i < all.size() && named < 16; ++i) {
    if (fate.keeps(i) == name_lost) continue;
    ++named;
    const Change& change = world_.change(all[i].change);
    if (change.kind == ChangeKind::write) {
      text += fmt::format(" {}[{}+{}]", world_.origin().files[change.file].path,
                          change.at + all[i].skip, all[i].length);
    } else {
      text += fmt::format(" change {} (kind {})", all[i].change, static_cast<int>(change.kind));
    }
  }
  if (fate.torn >= 0) text += fmt::format("; atom {} cut to {} bytes", fate.torn, fate.torn_bytes);
  return text;
}

// --- fates

Fate Crash::empty_fate() {
  Fate fate;
  fate.kept.assign(atoms().size() / 64 + 1, 0);
  return fate;
}

Fate Crash::random_fate(uint64_t seed) {
  Prng prng(seed);
  Fate fate = empty_fate();
  const uint64_t density = 1 + prng.below(15);  // Of 16: few, half and most survive equally often.
  for (size_t i = 0; i < atoms_.size(); ++i) {
    if (prng.below(16) < density) fate.keep(i);
  }
  return fate;
}

// Collects different fates up to a budget.
class Crash::FateMaker {
 public:
  FateMaker(Crash& crash, size_t budget, uint64_t seed)
      : crash_(crash), all_(crash.atoms()), budget_(budget), prng_(seed) {}

  std::vector<Fate> make() {
    if (all_.size() <= crash_.options_.exhaustive_atoms && (size_t{1} << all_.size()) <= budget_) {
      subsets();
    } else {
      add(crash_.empty_fate());
      add(full());
      systematic();
    }
    if (crash_.options_.torn_atoms) tear_atoms();
    // Samples repeat now and then, and the space may be nearly used up: so bounded, not exact.
    const bool small = all_.size() <= crash_.options_.exhaustive_atoms;
    for (size_t tries = small ? 0 : budget_ * 2; tries > 0 && !done(); --tries) {
      add(crash_.random_fate(prng_.next()));
    }
    return std::move(made_);
  }

 private:
  bool done() const { return made_.size() >= budget_; }
  void add(Fate fate) {
    if (!done() && seen_.insert(crash_.key(fate)).second) made_.push_back(std::move(fate));
  }
  Fate full() {
    Fate fate = crash_.empty_fate();
    for (size_t i = 0; i < all_.size(); ++i) fate.keep(i);
    return fate;
  }
  void subsets() {
    for (uint64_t bits = 0; bits < uint64_t{1} << all_.size(); ++bits) {
      Fate fate = crash_.empty_fate();
      fate.kept[0] = bits;
      add(std::move(fate));
    }
  }

  // Atoms [first, end) of each change.
  struct Run {
    size_t first = 0;
    size_t end = 0;
  };
  std::vector<Run> runs() const {
    std::vector<Run> found;
    for (size_t i = 0; i < all_.size(); ++i) {
      if (i == 0 || all_[i].change != all_[i - 1].change) found.push_back({i, i});
      found.back().end = i + 1;
    }
    return found;
  }

  enum class Kind : uint8_t { atom_kept, atom_lost, head, head_alone, tail, tail_alone, changes };
  struct Candidate {
    Kind kind = Kind::atom_kept;
    uint64_t a = 0;
    uint64_t b = 0;
    uint64_t c = 0;
  };

  void systematic() {
    std::vector<Candidate> candidates;
    const std::vector<Run> changes = runs();
    for (size_t i = 0; i < all_.size(); ++i) {
      candidates.push_back({Kind::atom_kept, i, 0, 0});
      candidates.push_back({Kind::atom_lost, i, 0, 0});
    }
    for (const Run& run : changes) {
      for (size_t cut = run.first + 1; cut < run.end; ++cut) {
        for (const Kind kind : {Kind::head, Kind::head_alone, Kind::tail, Kind::tail_alone}) {
          candidates.push_back({kind, run.first, cut, run.end});
        }
      }
    }
    const size_t whole = std::min<size_t>(changes.size(), 5);
    for (uint64_t bits = 0; bits < uint64_t{1} << whole; ++bits) {
      candidates.push_back({Kind::changes, bits, whole, 0});
    }
    // When there are more than the budget, a fair choice; a quarter of it is left for samples.
    const size_t limit = budget_ - budget_ / 4;
    for (size_t i = 0; i < candidates.size() && made_.size() < limit; ++i) {
      std::swap(candidates[i], candidates[i + prng_.below(candidates.size() - i)]);
      add(fate_of(candidates[i], changes));
    }
  }

  Fate fate_of(const Candidate& candidate, const std::vector<Run>& changes) {
    const bool others = candidate.kind == Kind::atom_lost || candidate.kind == Kind::head ||
                        candidate.kind == Kind::tail;
    Fate fate = others ? full() : crash_.empty_fate();
    const auto set = [&](size_t first, size_t end, bool kept) {
      for (size_t i = first; i < end; ++i) kept ? fate.keep(i) : fate.lose(i);
    };
    switch (candidate.kind) {
      case Kind::atom_kept:
        fate.keep(candidate.a);
        break;
      case Kind::atom_lost:
        fate.lose(candidate.a);
        break;
      case Kind::head:
      case Kind::head_alone:
        set(candidate.a, candidate.b, true);
        set(candidate.b, candidate.c, false);
        break;
      case Kind::tail:
      case Kind::tail_alone:
        set(candidate.a, candidate.b, false);
        set(candidate.b, candidate.c, true);
        break;
      case Kind::changes:  // Subsets of the last few changes; all the earlier ones survive.
        for (size_t i = 0; i < changes.size(); ++i) {
          const size_t late = changes.size() - candidate.b;
          set(changes[i].first, changes[i].end, i < late || (candidate.a >> (i - late) & 1) != 0);
        }
        break;
    }
    return fate;
  }

  void tear_atoms() {
    for (size_t i = 0; i < all_.size() && !done(); ++i) {
      if (all_[i].length <= 512) continue;
      for (const bool others : {true, false}) {
        Fate fate = others ? full() : crash_.empty_fate();
        fate.keep(i);
        fate.torn = static_cast<int32_t>(i);
        fate.torn_bytes =
            static_cast<uint32_t>(512 * (1 + prng_.below((all_[i].length - 1) / 512)));
        add(std::move(fate));
      }
    }
  }

  Crash& crash_;
  const std::vector<Atom>& all_;
  size_t budget_;
  Prng prng_;
  std::vector<Fate> made_;
  std::set<uint64_t> seen_;
};

std::vector<Fate> Crash::fates(size_t budget, uint64_t seed) {
  return FateMaker(*this, budget, seed).make();
}

}  // namespace firn::sim
