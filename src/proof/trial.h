// SPDX-License-Identifier: Apache-2.0
// A trial: one random life of a pool on a simulated world, and the verdicts on every way it may
// end.
//
//   - crash enumeration: at every moment of the log, for every fate of what was pending, the pool
//     must open, check clean and show what the model allows
//   - error counting: with the Nth call failing, for every N, nothing flushed may be lost
//   - determinism: the same seed gives the same trace twice
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "disk/disks.h"
#include "proof/model.h"
#include "sim/crash.h"
#include "sim/sim_io.h"

namespace firn::proof {

struct TrialShape {
  uint64_t clients = 3;
  uint64_t steps = 30;         // Requests of each client.
  uint64_t empty_one_in = 12;  // How often it discards all of them.
  uint64_t spot_grains = 12;   // Each client works on four spots of so many grains.
  uint64_t flush_one_in = 6;
  uint64_t pool_blocks = 8;
  uint64_t journal_bytes = 256 * kKiB;
  uint64_t disk_bytes = 64 * kMiB;
  bool background = true;      // Ticker, home writer, formatter run too.
  bool recycle = false;        // Begins by filling and emptying storage blocks by a script.
  bool change_catalog = true;  // A second disk comes and goes, another is resized.
  bool coalesce = false;       // The clients' requests are gathered on the way (disk/coalesce).

  // A shape of its own for each seed: small pools and rings recycle their space, one client empties
  // whole storage blocks, several meet in commits; some run without background.
  static TrialShape of(uint64_t seed) {
    const bool alone = seed % 4 == 1;
    return {.clients = alone ? uint64_t{1} : 2 + seed % 3,
            .steps = alone ? uint64_t{160} : 30,
            .empty_one_in = alone ? uint64_t{6} : 12,
            .spot_grains = alone ? uint64_t{56} : 12,
            .flush_one_in = alone ? uint64_t{30} : 6,
            .pool_blocks = (alone ? 1 + seed / 4 % 2 : 2 + seed % 2),
            .journal_bytes = (alone || seed % 3 == 0 ? 256 : 64) * kKiB,
            .background = !alone && seed % 5 != 0};
  }
};

struct Verdict {
  std::vector<std::string> violations;  // At most ten; each names seed, moment and fate.
  uint64_t crash_states = 0;            // Distinct ones that were recovered and judged.
  uint64_t moments = 0;
  uint64_t recoveries_crashed = 0;  // States reached by crashing a recovery.
  uint64_t trace = 0;
  bool good() const { return violations.empty(); }
};

class Trial {
 public:
  Trial(uint64_t seed, TrialShape shape);

  // Lives once; fault (if any) strikes on the way. Returns the trace hash.
  uint64_t live(const sim::Fault* fault = nullptr);
  bool fault_struck() const { return fault_struck_; }
  uint64_t operations() const { return operations_; }

  // After live(): crashes everywhere. At most `budget` fates a moment, `states_max` states in all.
  void enumerate(Verdict& verdict, size_t budget, uint64_t states_max);
  // After live(): what the world holds now, without a crash, must be right.
  void judge_end(Verdict& verdict);

 private:
  struct Acknowledged {
    DiskModel::Cover floors;    // Of disk "main".
    bool extra_before = false;  // Whether disk "extra" may be absent / present.
    bool extra_after = false;
    std::vector<uint64_t> sizes;  // That disk "grow" may have.
  };

  void set_up();
  void leave_junk(Io& io, disk::Disks& disks) const;
  void client(Io& io, uint64_t which, BlockDevice& disk);
  void one_request(Io& io, uint64_t which, BlockDevice& disk, Prng& prng);
  enum class Kind : uint8_t { write, zero, discard };
  void request(Io& io, BlockDevice& disk, Kind kind, Range range, bool fua);
  void flush(Io& io, BlockDevice& disk);
  void recycle(Io& io, BlockDevice& disk);
  void empty_all(Io& io, uint64_t which, BlockDevice& disk);
  uint64_t spot_of(uint64_t which, uint64_t spot) const;
  void catalog_client(Io& io, class CatalogDriver& driver);
  void mark();
  bool judge(sim::World& image, const Acknowledged& known, const std::string& where,
             Verdict& verdict);
  bool judge_content(Io& io, BlockDevice& disk, const Acknowledged& known, const std::string& where,
                     Verdict& verdict);
  void crash_recovery(sim::World image, const Acknowledged& known, const std::string& where,
                      uint64_t seed, Verdict& verdict);

  uint64_t seed_;
  TrialShape shape_;
  sim::World world_;
  DiskModel model_;
  Stamp next_stamp_ = 1;
  std::vector<Acknowledged> acknowledged_;  // By mark.
  Acknowledged now_;
  bool fault_struck_ = false;
  uint64_t operations_ = 0;
  uint64_t trace_ = 0;
  bool expect_errors_ = false;
};

}  // namespace firn::proof
