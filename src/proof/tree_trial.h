// SPDX-License-Identifier: Apache-2.0
// A trial of trees of layers: disks, snapshots, clones, reverts and the jobs that take layers out,
// while clients write; and the verdict on every way in which that may end.
//
// The model knows what each name may show. Of a disk: the histories that it may be in (two while a
// revert is under way, each whole), and how much of them is durable. Of a snapshot: what was
// acknowledged before the call at least, nothing begun after it, and from the first time that it
// was read exactly that. A name whose making or unmaking is not acknowledged may be there or not.
// Of a change id: tree_tracking.cc.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "disk/disks.h"
#include "proof/model.h"
#include "proof/trial.h"

namespace firn::proof {

struct TreeShape {
  uint64_t rounds = 2;   // Between them the pool is closed and opened again.
  uint64_t clients = 2;  // On disk "main".
  uint64_t steps = 24;   // Requests of each of them, in all rounds.
  uint64_t spot_grains = 6;
  uint64_t flush_one_in = 7;
  uint64_t ops = 16;  // Of the driver, who changes the tree.
  uint64_t snapshots_max = 6;
  uint64_t clones_max = 3;
  uint64_t pool_blocks = 12;
  uint64_t journal_bytes = 256 * kKiB;
  bool background = true;
  bool append = false;  // "main" redirects its overwrites.
  // How often the driver does what; relative.
  struct Weights {
    uint64_t snapshot = 6, unsnapshot = 4, clone = 2, unclone = 1, burst = 3, revert = 1, look = 2;
    uint64_t begin = 4, untrack = 0, resize = 1, shrink = 2;
  } weights;

  // Deep chains, wide fans, storms of deletes, and everything at once, by turns.
  static TreeShape of(uint64_t seed);
};

class TreeTrial {
 public:
  explicit TreeTrial(uint64_t seed, TreeShape shape = {});

  // Before live(): done once, made durable, and not crashed.
  using Script = std::function<void(TreeTrial&)>;
  void prepare(const Script& script);
  // A random life, or a scripted one. Returns the trace hash.
  uint64_t live(const sim::Fault* fault = nullptr, const Script* script = nullptr);
  bool fault_struck() const { return fault_struck_; }
  uint64_t operations() const { return operations_; }
  const disk::JobCounters& jobs_done() const { return jobs_done_; }
  struct AskedCounters {
    uint64_t events = 0, lists = 0;
  };
  const AskedCounters& asked() const { return asked_; }
  const disk::ShrinkInfo& shrunk() const { return shrunk_; }  // The sum of all.
  // After live(); as Trial.
  void enumerate(Verdict& verdict, size_t budget, uint64_t states_max, uint64_t again_one_in = 60);
  void judge_end(Verdict& verdict);

  // --- for scripts, inside live() or prepare(): each tells the model, acts, and tells it again.
  void write(const std::string& disk, uint64_t grain, uint64_t count = 1);
  void discard(const std::string& disk, uint64_t grain, uint64_t count = 1);
  void flush(const std::string& disk);
  bool snapshot(const std::string& disk, const std::string& name);
  bool unsnapshot(const std::string& disk, const std::string& name);
  bool clone(const std::string& disk, const std::string& name, const std::string& to);
  bool remove(const std::string& disk);                           // With its snapshots.
  bool revert(const std::string& disk, const std::string& name);  // Forced when it is in use.
  void sweep();
  // An event of change tracking, with a snapshot of its moment when it has a name.
  bool begin(const std::string& disk, const std::string& app, const std::string& snapshot = {});
  void list(const std::string& disk);  // Since each event that is known, compared.
  bool untrack(const std::string& disk);
  bool resize(const std::string& disk, uint64_t bytes);
  bool shrink(const std::string& disk);
  void verify(const std::string& disk);  // Shows what was written last; nobody else writes to it.
  void look_at_all();                    // Compares what can be compared now, and checks.
  disk::Disks& disks() { return *disks_; }
  Io& io() { return *io_; }
  std::vector<std::string>& wrongs() { return wrongs_; }

  // Grains that requests may touch: `clients` stretches at the begin of a few leaves.
  uint64_t grain_of(uint64_t which, uint64_t spot) const;
  static constexpr uint64_t kLeaves[3] = {0, 3, 700};  // One level each more.
  static constexpr uint64_t kClientApart = 45;  // Grains: the next block, and across its end.
  static constexpr uint64_t kDiskBytes = 3 * kGiB;

 private:
  enum class Kind : uint8_t { write, zero, discard };
  // One way in which a name may show itself.
  struct Way {
    std::shared_ptr<const DiskModel> model;
    std::shared_ptr<const DiskModel::Cover> floors;  // None: all zero.
    std::shared_ptr<const DiskModel::Cover> caps;    // None: unlimited.
  };
  // An event of change tracking, and what somebody read of the disk after it.
  struct Event {
    std::string id;
    Contents copy;
    uint64_t bytes = 0;                  // Of the disk then,
    uint64_t bytes_least = 0;            // and at least since.
    bool left = false;                   // The disk was reverted since, or is not tracked any more,
    bool unsure = false;                 // or that was tried.
    mutable std::set<uint64_t> touched;  // Blocks that may have changed since.
    void touch(Range range) const;
  };
  enum class Standing : uint8_t { good, doubtful, refused };
  struct Asked {
    std::shared_ptr<Event> event;
    Standing standing;
  };
  struct Told {
    std::vector<Range> runs;
    uint64_t bytes = 0;  // Of the disk.
  };
  struct Expected {
    bool maybe_gone = false;
    std::vector<Way> ways;
    std::vector<Asked> asked{};
  };
  using State = std::map<std::string, std::shared_ptr<const Expected>>;  // Others are not there.
  struct Flight;
  struct Candidate {
    std::shared_ptr<DiskModel> model;
    bool unsettled = false;  // A revert to it is under way: requests may go elsewhere.
  };
  struct Live {
    std::vector<Candidate> candidates;
    std::set<Flight*> flights;
    std::vector<Asked> asked;
    std::shared_ptr<Event> beginning;
    std::map<std::string, std::shared_ptr<Event>> last;  // By application.
  };

  // --- living
  void with_pool(Io& io, bool background, const std::function<void()>& what);
  void leave_junk();
  void random_life(uint64_t round);
  void client(uint64_t which, BlockDevice& device, Prng prng);
  void one_request(uint64_t which, const std::string& disk, BlockDevice& device, Prng& prng);
  void driver(uint64_t round, Prng prng);
  void asker(Prng prng);
  void tree_op(Prng& prng);
  void resize_somehow(const std::string& disk, Prng& prng);
  void burst(const std::string& disk, Prng& prng);
  void request(const std::string& disk, BlockDevice& device, Kind kind, Range range, bool fua);
  void flush_device(const std::string& disk, BlockDevice& device);
  Result<void> act(BlockDevice& device, Kind kind, Range range, Stamp stamp, bool fua);
  void compare_diff(const std::string& a, const std::string& b);
  void compare_snapshot(const std::string& full);
  void check_now();

  // --- the model
  void expect(const std::string& name, Expected expected);
  void expect_disk(const std::string& disk, bool maybe_gone = false);
  void expect_exact(const std::string& name, const Contents& contents, bool maybe_gone);
  void mark();
  bool freeze(const std::string& disk, const std::string& name,
              const std::function<Result<void>()>& act);
  bool settle_snapshot(const std::string& full);
  std::vector<std::string> snapshots_of(const std::string& disk) const;
  bool failed(const Result<void>& done);

  // --- change tracking
  static void touch(const Live& live, Range range);
  static void touch_flights(const Live& live, const Event& event);
  void set_standing(const std::string& disk, Standing standing);
  void compare_view(const std::string& full, const std::string& app,
                    const std::shared_ptr<Event>& before, const std::string& previous);
  std::string unfit(const Event& event, const Told& told, const Contents& shown,
                    const std::set<uint64_t>& spared, bool exact) const;
  std::string ask(Io& io, disk::Disks& disks, const std::string& disk, const Asked& asked,
                  const std::function<std::string(const Told&)>& check) const;
  std::string judge_asked(Io& io, disk::Disks& disks, const std::string& disk,
                          const Expected& expected, const Contents& shown, bool exact) const;
  std::string judge_next_event(Io& io, disk::Disks& disks, const State& known) const;

  // --- judging
  Result<Contents> read_all(Io& io, BlockDevice& device) const;
  Result<Contents> read_name(Io& io, disk::Disks& disks, const std::string& name) const;
  static std::string refusal(const Expected& expected, const Contents& shown);
  // `exact`: it was closed, so what is told has changed.
  bool judge(sim::World& image, const State& known, const std::string& where, Verdict& verdict,
             bool exact = false);
  std::string judge_open(Io& io, store::Pool& pool, disk::Disks& disks, const State& known,
                         bool swept, bool exact);
  void crash_recovery(sim::World image, const State& known, const std::string& where, uint64_t seed,
                      Verdict& verdict);

  uint64_t seed_;
  TreeShape shape_;
  sim::World world_;
  std::vector<uint64_t> universe_;  // Grains, ascending.
  Stamp next_stamp_ = 1;
  uint64_t next_name_ = 1;
  std::map<std::string, Live> live_;
  std::map<std::string, Contents> exact_;  // DISK@SNAP that was read.
  std::set<std::string> doubtful_;         // An error left them somewhere between.
  State now_;
  std::vector<State> acknowledged_;  // By mark.
  std::vector<std::string> wrongs_;  // Found while living.

  Io* io_ = nullptr;  // While something lives.
  store::Pool* pool_ = nullptr;
  disk::Disks* disks_ = nullptr;
  bool expect_errors_ = false;
  bool fault_struck_ = false;
  uint64_t operations_ = 0;
  bool exact_told_ = true;  // Closed each time: what is told has changed.
  disk::JobCounters jobs_done_;
  AskedCounters asked_;
  disk::ShrinkInfo shrunk_;
};

}  // namespace firn::proof
