// SPDX-License-Identifier: Apache-2.0
// Crash: what a world may look like after the power fails, for each moment of its log.
//
// Terms and contract:
//  - A crash *at i* happens after events [0, i) and before event i.
//  - A change is *pending* at i when it was issued and is not durable. It becomes durable when a
//    flush of its file (for names: of its directory) completes that began after the change had
//    completed.
//  - An *atom* is the part of one pending write that lies in one aligned unit of its file's atom
//    size (512 bytes; 4096 for files named as data). A resize, a punch and a change of names are
//    one atom each.
//  - A *fate* says which atoms survive, each for itself, so any reordering is some fate. Survivors
//    are applied in the order in which the changes completed, those still in flight last.
//  - Each atom survives whole or not at all, but for one: with `torn_atoms` a fate may keep only
//    the first k * 512 bytes of one atom that is larger than that. Off by default: the promise of
//    whole 4 KiB grains needs a medium that keeps them whole.
//  - image() is the world after that fate: no log, no locks, no latent errors but those that were
//    there when the log began.
//
// Moving forward by one event costs that event; an image costs the atoms that survive, not the
// world. The World must outlive it and not lose its log; new events may come.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "sim/world.h"

namespace firn::sim {

struct CrashOptions {
  struct AtomRule {
    std::string
        files;  // Shell pattern over the last part of the path; the first that matches counts.
    uint32_t bytes = 4096;
  };
  std::vector<AtomRule> atoms{{"data*", 4096}};
  uint32_t atom_bytes = 512;  // Of all other files.
  bool torn_atoms = false;
  size_t exhaustive_atoms = 6;  // Up to so many atoms all subsets are fates.
};

struct Fate {
  std::vector<uint64_t> kept;  // A bit per atom of atoms().
  int32_t torn = -1;           // The atom that is cut, or -1; its bit is set.
  uint32_t torn_bytes = 0;     // What is left of it.

  bool keeps(size_t atom) const { return (kept[atom / 64] >> (atom % 64) & 1) != 0; }
  void keep(size_t atom) { kept[atom / 64] |= uint64_t{1} << (atom % 64); }
  void lose(size_t atom) { kept[atom / 64] &= ~(uint64_t{1} << (atom % 64)); }
};

struct Atom {
  uint64_t change = 0;  // In World::change().
  uint64_t skip = 0;    // Where in the write it begins.
  uint64_t length = 0;  // 0 for what is not a write.
};

class Crash {
 public:
  explicit Crash(const World& world, CrashOptions options = {});

  // Moments: 0 .. events(). Going forward is cheap, going back begins anew.
  size_t events() const { return world_.events().size(); }
  // The moments worth visiting: of each run of moments with the same possible images the last one,
  // where the most has been acknowledged.
  std::vector<size_t> moments() const;
  void move_to(size_t moment);
  size_t moment() const { return moment_; }

  // --- at this moment
  const std::vector<Atom>& atoms();
  size_t pending_changes() const { return pending_.size(); }
  const std::vector<uint64_t>& marks() const { return marks_; }  // All so far.
  uint64_t last_mark() const { return marks_.empty() ? 0 : marks_.back(); }
  // At most `budget` different fates: all subsets when the atoms are few; else none, all, whole
  // changes, each atom alone kept or lost, writes cut at the head and at the tail, and samples.
  std::vector<Fate> fates(size_t budget, uint64_t seed);
  Fate random_fate(uint64_t seed);
  World image(const Fate& fate, bool record = false);
  // The same number exactly when durable state and survivors are the same: tells repeated crash
  // states, also between moments.
  uint64_t key(const Fate& fate);
  // "moment 17: keeps 3 of 5 atoms: data[4096+4096] ..." for messages.
  std::string describe(const Fate& fate);

  // The same with the moment named.
  const std::vector<Atom>& pending_at(size_t moment_wanted) {
    move_to(moment_wanted);
    return atoms();
  }
  std::vector<Fate> fates(size_t moment_wanted, size_t budget, uint64_t seed) {
    move_to(moment_wanted);
    return fates(budget, seed);
  }
  World image(size_t moment_wanted, const Fate& fate, bool record = false) {
    move_to(moment_wanted);
    return image(fate, record);
  }

 private:
  struct Pending {
    uint64_t change = 0;
    uint64_t length = 0;          // What of it can happen: a failed write may have been cut.
    size_t completed = SIZE_MAX;  // The event; SIZE_MAX while in flight.
  };
  class FateMaker;

  void restart();
  void step();
  void settle_flush(uint64_t flush);
  bool covers(uint64_t flush, const Change& change) const;
  uint32_t atom_bytes_of(FileId file);
  Fate empty_fate();

  const World& world_;
  CrashOptions options_;
  size_t moment_ = 0;
  State durable_;
  uint64_t durable_version_ = 0;
  std::vector<Pending> pending_;     // In the order of application: completed ones first.
  std::vector<size_t> flush_begun_;  // By flush: the event.
  std::vector<uint64_t> marks_;
  std::vector<uint32_t> atom_bytes_;  // By file; 0: not asked yet.
  std::vector<Atom> atoms_;
  bool atoms_known_ = false;
};

}  // namespace firn::sim
