// SPDX-License-Identifier: Apache-2.0
// The trackers of a pool's disks: opened with their disks, flushed in the background, and the verbs
// that users call. Part of DisksImpl.
//
//  Y1  A disk that is open and has a record of change tracking has its tracker, before anybody can
//      write to it.
//  Y2  Order of locks: the catalog's `changing_`, the tracker's turn, fence, gate, range,
//      admission.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "disk/catalog.h"
#include "disk/changes.h"
#include "disk/thin.h"
#include "disk/tracking.h"

namespace firn::disk {

class DisksImpl;

class TrackingImpl final : public Tracking {
 public:
  TrackingImpl(Io& io, store::Pool& pool, DisksImpl& disks)
      : pool_(pool), disks_(disks), io_(io), flusher_(io) {}
  ~TrackingImpl();

  Result<BegunInfo> begin(Io& io, std::string_view disk, std::string_view application,
                          std::string_view snapshot) override;
  Result<ChangeList> list(Io& io, std::string_view disk, std::string_view since, uint64_t offset,
                          uint64_t limit) override;
  Result<std::vector<ApplicationInfo>> applications(Io& io, std::string_view disk) override;
  Result<void> end(Io& io, std::string_view disk, std::string_view application) override;
  Result<void> off(Io& io, std::string_view disk) override;
  std::vector<TrackingInfo> tracked() const override;
  Result<TrackingInfo> info(Io& io, std::string_view disk) override;
  Result<std::vector<NamedView>> views(Io& io, std::string_view name) override;

  // --- for DisksImpl
  void start_background();
  Result<void> close(Io& io);
  // Y1. Null when the disk has no record.
  Result<ChangeTracker*> open(Io& io, const format::Named& disk);
  std::shared_ptr<ChangeTracker> find(const format::Uuid& disk) const;
  void rename(const format::Uuid& disk, std::string name);
  // When its disk is gone or is not tracked any more: applications, the log's pages, the record.
  // The caller holds `changing_`.
  Result<void> drop(Io& io, const format::Uuid& disk);
  // What a removal that was cut short has left.
  Result<void> drop_orphans(Io& io);

  // An event on its way: from before the fence, if there is one, until the atom is durable.
  class Event {
   public:
    explicit Event(std::shared_ptr<ChangeTracker> tracker) : tracker_(std::move(tracker)) {}
    bool has_happened() const { return happened_; }
    // Who begins, and where its record goes.
    void set_application(const Catalog::Slot* slot, const format::ApplicationRecord& record) {
      slot_ = slot;
      application_ = record;
    }
    const format::ApplicationRecord& application() const { return application_; }
    Result<void> prepare(Io& io);  // Takes the turn.
    // In the caller's atom. What a snapshot remembers of it; nothing when nothing is tracked.
    std::optional<format::SnapshotEvent> take(Catalog& catalog);
    void settle(Io& io);

   private:
    std::shared_ptr<ChangeTracker> tracker_;
    std::optional<Mutex::Hold> turn_;
    bool happened_ = false;
    const Catalog::Slot* slot_ = nullptr;
    format::ApplicationRecord application_;
  };
  // Of the disk's tracker, if it is active.
  Result<Event> event_of(Io& io, const format::Named& disk);

 private:
  class View;

  TrackingInfo describe(const ChangeTracker& tracker) const;
  Result<void> make_record(Io& io, const Catalog::NameSeen& disk);
  Result<void> ensure(Io& io, const Catalog::NameSeen& disk);
  Result<ChangeId> begin_event(Io& io, Catalog::NameSeen& disk, std::string_view application,
                               std::string_view snapshot);
  Result<void> forget(Io& io, const format::Uuid& disk, const std::string& application);
  void run_flusher(Io& io);
  bool any_at_work() const;

  store::Pool& pool_;
  DisksImpl& disks_;
  std::map<format::Uuid, std::shared_ptr<ChangeTracker>> trackers_;
  bool stopping_ = false;
  Io& io_;
  WaitList due_;  // The flusher rests here while every tracker does.
  Group flusher_;
};

}  // namespace firn::disk
