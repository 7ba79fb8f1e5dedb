// SPDX-License-Identifier: Apache-2.0
// The one implementation of Disks. disks.cc: looking, and disks that come and go; snapshots.cc;
// sweep.cc: the jobs; check.cc.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>

#include "disk/catalog.h"
#include "disk/disks.h"
#include "disk/shrink.h"
#include "disk/steps.h"
#include "disk/thin.h"
#include "disk/tracking_impl.h"
#include "io/mutex.h"

namespace firn::disk {

class DisksImpl final : public Disks {
 public:
  DisksImpl(Io& io, store::Pool& pool)
      : pool_(pool), catalog_(pool), tracking_(io, pool, *this), io_(io), sweeper_(io) {}
  ~DisksImpl() override;

  Result<void> load(Io& io);

  std::vector<DiskInfo> list() const override;
  Result<DiskInfo> info(std::string_view name) const override;
  Result<void> create(Io& io, std::string_view name, uint64_t bytes) override;
  Result<void> rename(Io& io, std::string_view name, std::string_view to) override;
  Result<void> resize(Io& io, std::string_view name, uint64_t bytes) override;
  Result<void> remove(Io& io, std::string_view name, bool snapshots_too) override;
  Result<void> set(Io& io, std::string_view name, std::string_view key,
                   std::string_view value) override;
  Result<void> arrived(Io& io, std::string_view uuid) override;
  Result<std::shared_ptr<BlockDevice>> attach(Io& io, std::string_view name) override;
  Result<CheckReport> check(Io& io, bool repair) override;

  Result<std::vector<SnapshotInfo>> snapshots(std::string_view disk) const override;
  Result<SnapshotInfo> snapshot_info(std::string_view disk, std::string_view name) const override;
  Result<void> snapshot(Io& io, std::string_view disk, std::string_view name) override;
  Result<void> remove_snapshot(Io& io, std::string_view disk, std::string_view name) override;
  Result<void> revert(Io& io, std::string_view disk, std::string_view name, bool force) override;
  Result<void> clone(Io& io, std::string_view disk, std::string_view name,
                     std::string_view to) override;
  Result<void> diff(Io& io, std::string_view a, std::string_view b, Range range,
                    DiffSink& sink) override;

  Result<ShrinkInfo> shrink(Io& io, std::string_view name) override;
  Tracking& tracking() override { return tracking_; }
  const Tracking& tracking() const override { return tracking_; }
  Result<void> close(Io& io) override { return tracking_.close(io); }

  std::vector<JobInfo> jobs() const override;
  JobCounters job_counters() const override { return job_counters_; }
  Result<void> sweep(Io& io) override;

 private:
  friend class TrackingImpl;
  using Names = Catalog::Names;
  struct Open {
    std::shared_ptr<ThinDisk> disk;
    std::shared_ptr<uint32_t> attached = std::make_shared<uint32_t>(0);
  };

  // --- names
  Result<Names::iterator> find(std::string_view name);
  Result<Names::const_iterator> find(std::string_view name) const;
  // The name record that DISK or DISK@SNAP means.
  Result<const Catalog::NameSeen*> find_any(std::string_view name) const;
  Result<const Catalog::NameSeen*> find_snapshot(const format::Named& disk,
                                                 std::string_view name) const;
  std::string full_name(const format::Named& named) const;
  struct Chain {
    uint32_t layers = 0;
    uint32_t going = 0;
  };
  using Chains = std::map<uint32_t, Chain>;  // Down from each layer.
  Chain chain_of(uint32_t layer, Chains& known) const;
  DiskInfo describe(const Catalog::NameSeen& seen, Chains& chains) const;
  SnapshotInfo describe_snapshot(const format::Named& disk, const Catalog::NameSeen& seen) const;
  bool rests_on(uint32_t layer, uint32_t below) const;
  struct Owned {
    uint64_t grains = 0;
    uint64_t pages = 0;
  };
  Owned owned_by(const format::LayerRecord& layer) const;
  bool is_hidden(uint32_t layer) const;  // Frozen, and without a name.
  std::string disk_of_live_layer(uint32_t layer) const;
  uint32_t attached(const format::Uuid& name) const;
  Result<void> refuse_attached(const Catalog::NameSeen& seen, std::string_view verb) const;
  Result<void> put_name(Io& io, const Catalog::NameSeen& seen);
  format::Uuid fresh_uuid(Io& io) const;
  // What a disk's settings mean here; the others are the front ends'.
  Result<void> put_settings(Io& io, Catalog::NameSeen& seen,
                            std::map<std::string, std::string> settings);
  void apply_settings(ThinDisk& disk, const std::map<std::string, std::string>& settings);

  // --- opening
  Result<std::shared_ptr<Layer>> open_layer(Io& io, uint32_t layer);
  Result<std::shared_ptr<ThinDisk>> open_disk(Io& io, const Catalog::NameSeen& seen);

  // --- changes of the catalog; each is one atom, made with `changing_` held
  struct Slots {  // Records set aside; abandoned unless they were used.
    explicit Slots(Catalog& of) : catalog(of) {}
    ~Slots();
    Slots(const Slots&) = delete;
    Slots& operator=(const Slots&) = delete;
    Result<Catalog::Slot*> take(Io& io);
    void used() { slots.clear(); }
    Catalog& catalog;
    std::vector<std::unique_ptr<Catalog::Slot>> slots;
  };
  format::LayerRecord child_of(Io& io, const format::LayerRecord& parent, uint32_t id) const;
  Result<void> freeze(Io& io, Catalog::NameSeen& disk, std::string_view name,
                      TrackingImpl::Event& event);
  Result<void> swap_to(Io& io, Catalog::NameSeen& disk, const format::Named& to, bool force);
  Result<void> unname(Io& io, const Catalog::NameSeen& seen);
  Result<void> erase_layer(Io& io, uint32_t layer);
  Result<void> wait_until_left(Io& io, const std::shared_ptr<Layer>& layer);
  Result<void> unlink(Io& io, uint32_t lower, uint32_t upper);

  // --- jobs (sweep.cc)
  // A job that could not go on, and when it is tried again: nothing when that would be in vain.
  struct Failure {
    uint32_t count = 0;  // In a row.
    std::optional<Time> again;
    std::string why;
  };
  using Failures = std::map<uint32_t, Failure>;
  bool rests(const Failures& failures, uint32_t of) const;
  Failure& note_failure(Failures& failures, uint32_t of, Error error);
  void tell_failure(uint32_t layer, Error error);
  void add_failure(JobInfo& job, const Failure& failure) const;
  JobInfo job_of(uint32_t layer, uint32_t into) const;
  bool is_due(uint32_t layer) const;
  bool is_doomed(uint32_t layer) const;
  uint32_t next_due() const;  // 0: none.
  Result<void> run_job(Io& io, uint32_t layer);
  Result<void> run_consolidation(Io& io, uint32_t lower, Steps& steps);
  Result<void> run_drop(Io& io, uint32_t layer, Steps& steps);
  // `stopping` ends it at its next atom.
  Result<ShrinkInfo> run_shrink(Io& io, uint32_t family, const bool& stopping);
  bool space_is_short() const;
  void shrink_if_it_pays(Io& io, uint32_t family);
  Shrink make_shrink(uint32_t family, Steps& steps);
  void run_sweeper(Io& io);
  void run_retries(Io& io);
  uint32_t next_sparse() const;  // Family, 0: none.

  store::Pool& pool_;
  Catalog catalog_;
  Gate gate_;                          // Whoever changes maps passes; the check closes it.
  Mutex changing_;                     // One change of the catalog at a time.
  std::map<format::Uuid, Open> open_;  // By the uuid of the disk or snapshot.
  uint64_t openings_ = 0;              // Disks and snapshots opened so far.
  std::map<uint32_t, std::weak_ptr<Layer>> layers_;  // Those open now: one object each.

  bool stopping_ = false;
  policy::JobPace pace_;
  Mutex sweeping_;               // One job at a time.
  uint32_t running_ = 0;         // Layer of the job ...
  uint32_t shrinking_ = 0;       // ... or family.
  std::set<uint32_t> freed_in_;  // Families that lost grains to a job: maybe sparse now.
  const Steps* running_steps_ = nullptr;
  uint64_t shrink_steps_ = 0;  // About how many.
  Failures failed_;            // By layer.
  Failures shrinks_failed_;    // By family.
  JobCounters job_counters_;
  TrackingImpl tracking_;
  WaitList due_;       // The sweeper rests here.
  WaitList failures_;  // Rests here until something failed.
  // A layer is due: a shrink that nobody asked for ends at its next atom and comes back later, so
  // that whoever deletes a snapshot waits for that snapshot only.
  void wake_sweeper(Io& io) {
    giving_way_ = true;
    io.wake(due_);
  }
  bool giving_way_ = false;
  Io& io_;
  Group sweeper_;  // Last: it ends first.
};

}  // namespace firn::disk
