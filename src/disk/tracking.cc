// SPDX-License-Identifier: Apache-2.0
// Notes on the design
//
// A begin is an event: with a snapshot, its counter, the application's record and the snapshot are
// one atom inside the disk's fence; without one, an atom of its own, for which nobody has to wait:
// a write that is under way is marked when it completes, so it belongs to the next event.
//
// Everything about one disk that can be lost (revert, a full pool, a rotten index page) ends in the
// same way: the tracker is not active, every change id is refused with its reason, and the next
// begin makes a new branch.
#include "disk/tracking.h"

#include <algorithm>

#include "base/log.h"
#include "disk/disks_impl.h"
#include "disk/names.h"

namespace firn::disk {

using format::ApplicationRecord;
using format::Named;

namespace {

std::string id_text(const format::Uuid& disk, const format::Uuid& branch, uint64_t counter) {
  return format::text_of(ChangeId{disk, branch, counter});
}

}  // namespace

TrackingImpl::~TrackingImpl() {
  stopping_ = true;
  io_.wake(due_);
  flusher_.wait();
}

// --- trackers come and go

std::shared_ptr<ChangeTracker> TrackingImpl::find(const format::Uuid& disk) const {
  const auto found = trackers_.find(disk);
  return found == trackers_.end() ? nullptr : found->second;
}

void TrackingImpl::rename(const format::Uuid& disk, std::string name) {
  if (const auto tracker = find(disk)) tracker->set_name(std::move(name));
}

Result<ChangeTracker*> TrackingImpl::open(Io& io, const Named& disk) {
  Catalog& catalog = disks_.catalog_;
  const auto record = catalog.changes().find(disk.uuid);
  if (record == catalog.changes().end()) return nullptr;
  if (const auto open = find(disk.uuid)) return open.get();
  Catalog::Slot slot = TRY(catalog.pin(io, record->second));
  std::shared_ptr<ChangeTracker> tracker =
      TRY(ChangeTracker::open(io, pool_, std::move(slot.page), slot.at, disk.name));
  if (const auto again = find(disk.uuid)) return again.get();
  tracker->set_worker(&due_);
  const uint64_t bytes = catalog.layers().at(disk.layer).layer.bytes;
  if (tracker->bytes() != bytes && pool_.writable()) {
    log(LogLevel::error, "disk '{}': its change log is of a disk of another size; tracking ends",
        disk.name);
    const auto admission = TRY(pool_.pages().admit(io));
    tracker->invalidate();
    tracker->resize(bytes);
  }
  if (tracker->at_work()) io.wake(due_);
  trackers_[disk.uuid] = tracker;
  return tracker.get();
}

Result<void> TrackingImpl::make_record(Io& io, const Catalog::NameSeen& disk) {
  Catalog& catalog = disks_.catalog_;
  const auto thin = TRY(disks_.open_disk(io, disk));
  {
    const auto pass = disks_.gate_.enter(io);
    const auto admission = TRY(pool_.pages().admit(io));
    DisksImpl::Slots slots(catalog);
    const Catalog::Slot* const slot = TRY(slots.take(io));
    const NoWait atom;
    catalog.put(*slot, ChangeTracker::fresh_record(disk.named.uuid, thin->layer()->bytes(),
                                                   io.wall_clock_ns()));
    catalog.changes()[disk.named.uuid] = slot->record;
    slots.used();
  }
  ChangeTracker* const tracker = TRY(open(io, disk.named));
  thin->set_tracker(tracker);  // Not active yet: tells nobody anything.
  return ok;
}

// The disk has a tracker that can take an event.
Result<void> TrackingImpl::ensure(Io& io, const Catalog::NameSeen& disk) {
  const auto thin = TRY(disks_.open_disk(io, disk));
  if (find(disk.named.uuid) == nullptr) TRY(make_record(io, disk));
  const auto tracker = find(disk.named.uuid);
  if (tracker->ready()) return ok;
  if (tracker->active()) {  // Its counter is used up.
    const auto admission = TRY(pool_.pages().admit(io));
    tracker->invalidate();
  }
  TRY(tracker->free_pages(io));
  {
    const auto fenced = thin->fence().close(io);
    const auto pass = disks_.gate_.enter(io);
    const auto admission = TRY(pool_.pages().admit(io));
    const NoWait atom;
    if (!tracker->active()) tracker->activate();
  }
  TRY(tracker->begin(io, *thin));
  io.wake(due_);
  return ok;
}

Result<void> TrackingImpl::forget(Io& io, const format::Uuid& disk,
                                  const std::string& application) {
  Catalog& catalog = disks_.catalog_;
  const auto pass = disks_.gate_.enter(io);
  const auto admission = TRY(pool_.pages().admit(io));
  auto& all = catalog.applications(disk);
  const auto found = all.find(application);
  const Catalog::Slot slot = TRY(catalog.pin(io, found->second.record));
  const NoWait atom;
  catalog.clear(slot);
  all.erase(found);
  return ok;
}

Result<void> TrackingImpl::drop(Io& io, const format::Uuid& disk) {
  Catalog& catalog = disks_.catalog_;
  while (!catalog.applications(disk).empty()) {
    TRY(forget(io, disk, catalog.applications(disk).begin()->first));
  }
  const auto record = catalog.changes().find(disk);
  if (record == catalog.changes().end()) return ok;
  Catalog::Slot slot = TRY(catalog.pin(io, record->second));
  std::shared_ptr<ChangeTracker> tracker = find(disk);
  if (tracker == nullptr) {
    tracker = TRY(ChangeTracker::open(io, pool_, slot.page.again(), slot.at, "(gone)"));
  }
  if (tracker->active()) {
    const auto admission = TRY(pool_.pages().admit(io));
    if (tracker->active()) tracker->invalidate();
  }
  TRY(tracker->free_pages(io));
  {
    const auto pass = disks_.gate_.enter(io);
    const auto admission = TRY(pool_.pages().admit(io));
    const NoWait atom;
    catalog.clear(slot);
    catalog.changes().erase(disk);
    trackers_.erase(disk);
  }
  return pool_.flush(io);
}

Result<void> TrackingImpl::drop_orphans(Io& io) {
  Catalog& catalog = disks_.catalog_;
  std::set<format::Uuid> disks, orphans;
  for (const auto& [name, seen] : catalog.names()) disks.insert(seen.named.uuid);
  for (const auto& [disk, record] : catalog.changes()) {
    if (!disks.contains(disk)) orphans.insert(disk);
  }
  for (const auto& [disk, all] : catalog.all_applications()) {
    if (!disks.contains(disk)) orphans.insert(disk);
  }
  for (const format::Uuid& disk : orphans) TRY(drop(io, disk));
  return ok;
}

Result<void> TrackingImpl::close(Io& io) {
  const auto all = trackers_;
  for (const auto& [disk, tracker] : all) TRY(tracker->close(io));
  return ok;
}

// --- events

Result<TrackingImpl::Event> TrackingImpl::event_of(Io&, const Named& disk) {
  auto tracker = find(disk.uuid);
  if (tracker != nullptr && !tracker->ready()) tracker = nullptr;
  return Event(std::move(tracker));
}

Result<void> TrackingImpl::Event::prepare(Io& io) {
  if (tracker_ == nullptr) return ok;
  turn_.emplace(tracker_->turn(io));
  return ok;
}

std::optional<format::SnapshotEvent> TrackingImpl::Event::take(Catalog& catalog) {
  if (tracker_ == nullptr || !tracker_->ready()) return {};
  format::SnapshotEvent event;
  happened_ = true;
  event.counter = tracker_->take();
  event.branch = tracker_->now().branch;
  if (slot_ == nullptr) return event;
  ApplicationRecord& record = application_;
  event.application = format::name_of(record);
  event.has_previous = record.counter != 0 && record.branch == event.branch;
  event.previous = event.has_previous ? record.counter.get() : 0;
  record.has_previous = std::byte{event.has_previous ? uint8_t{1} : uint8_t{0}};
  record.previous = event.previous;
  record.branch = event.branch;
  record.counter = event.counter;
  catalog.put(*slot_, record);
  return event;
}

// The event has happened, whatever comes of its log: what cannot be written now stays in memory and
// is told.
void TrackingImpl::Event::settle(Io& io) {
  if (!turn_) return;
  const Result<void> settled = tracker_->settle(io);
  turn_.reset();
  if (!settled) log(LogLevel::error, "an event's log waits: {}", text_of(settled.error()));
}

Result<BegunInfo> TrackingImpl::begin(Io& io, std::string_view disk, std::string_view application,
                                      std::string_view snapshot) {
  TRY(pool_.writable());
  TRY(check_name(application));
  if (!snapshot.empty()) TRY(check_name(snapshot));
  const auto only = disks_.changing_.lock(io);
  Catalog::NameSeen& seen = TRY(disks_.find(disk))->second;
  if (!snapshot.empty() && disks_.catalog_.snapshot(seen.named.uuid, snapshot) != nullptr) {
    return fail(Errc::exists, "disk '{}' has a snapshot '{}' already", disk, snapshot);
  }
  TRY(ensure(io, seen));
  const ChangeId id = TRY(begin_event(io, seen, application, snapshot));
  const auto& record = disks_.catalog_.applications(id.disk).find(application)->second.application;
  BegunInfo info;
  info.change_id = format::text_of(id);
  if (record.has_previous == std::byte{1}) {
    info.previous = id_text(id.disk, id.branch, record.previous);
  }
  if (!snapshot.empty()) info.snapshot = fmt::format("{}@{}", disk, snapshot);
  return info;
}

Result<ChangeId> TrackingImpl::begin_event(Io& io, Catalog::NameSeen& disk,
                                           std::string_view application,
                                           std::string_view snapshot) {
  Catalog& catalog = disks_.catalog_;
  Catalog::Applications& all = catalog.applications(disk.named.uuid);
  auto found = all.find(application);
  ApplicationRecord record;
  if (found != all.end()) record = found->second.application;
  record.disk = disk.named.uuid;
  record.name_bytes = static_cast<std::byte>(application.size());
  std::ranges::copy(application, record.name.begin());
  record.began_ns = static_cast<uint64_t>(io.wall_clock_ns());
  std::string dropped;
  if (found == all.end() && all.size() >= format::kApplicationsMax) {  // The eldest makes room.
    found = std::ranges::min_element(
        all, {}, [](const auto& one) { return one.second.application.began_ns.get(); });
    dropped = found->first;
    log(LogLevel::warning, "disk '{}': application '{}' is forgotten, there are too many",
        disk.named.name, dropped);
  }
  DisksImpl::Slots slots(catalog);
  Catalog::Slot pinned;
  const Catalog::Slot* slot = &pinned;
  {
    const auto pass = disks_.gate_.enter(io);
    const auto admission = TRY(pool_.pages().admit(io));
    if (found == all.end()) {
      slot = TRY(slots.take(io));
    } else {
      pinned = TRY(catalog.pin(io, found->second.record));
    }
  }
  Event event = TRY(event_of(io, disk.named));
  event.set_application(slot, record);
  if (!snapshot.empty()) {
    TRY(disks_.freeze(io, disk, snapshot, event));
  } else {
    TRY(event.prepare(io));
    const auto pass = disks_.gate_.enter(io);
    const auto admission = TRY(pool_.pages().admit(io));
    const NoWait atom;
    event.take(catalog);
  }
  if (!event.has_happened()) {
    return fail(Errc::cancelled, "disk '{}': its tracking ended while an event began",
                disk.named.name);
  }
  if (!dropped.empty()) all.erase(dropped);
  all[std::string(application)] = {slot->record, event.application()};
  slots.used();
  TRY(pool_.flush(io));
  event.settle(io);
  return ChangeId{disk.named.uuid, event.application().branch, event.application().counter};
}

Result<void> TrackingImpl::end(Io& io, std::string_view disk, std::string_view application) {
  TRY(pool_.writable());
  const auto only = disks_.changing_.lock(io);
  const Named& named = TRY(disks_.find(disk))->second.named;
  if (!disks_.catalog_.applications(named.uuid).contains(application)) {
    return fail(Errc::not_found, "disk '{}' has no application '{}'", disk, application);
  }
  TRY(forget(io, named.uuid, std::string(application)));
  return pool_.flush(io);
}

Result<void> TrackingImpl::off(Io& io, std::string_view disk) {
  TRY(pool_.writable());
  const auto only = disks_.changing_.lock(io);
  const Catalog::NameSeen& seen = TRY(disks_.find(disk))->second;
  const format::Uuid uuid = seen.named.uuid;
  const auto thin = TRY(disks_.open_disk(io, seen));
  {
    const auto fenced = thin->fence().close(io);
    const auto pass = disks_.gate_.enter(io);
    const auto admission = TRY(pool_.pages().admit(io));
    const NoWait atom;
    const auto tracker = find(uuid);
    if (tracker != nullptr && tracker->active()) tracker->invalidate();
    thin->set_tracker(nullptr);
  }
  return drop(io, uuid);
}

// --- asking

Result<ChangeList> TrackingImpl::list(Io& io, std::string_view disk, std::string_view since,
                                      uint64_t offset, uint64_t limit) {
  class Page final : public ChangeSink {
   public:
    Page(ChangeList& list, uint64_t limit) : list_(list), limit_(limit) {}
    bool add(Range dirty) override {
      if (list_.extents.size() == limit_) {
        list_.next_offset = dirty.at;
        return false;
      }
      list_.extents.push_back(dirty);
      list_.bytes += dirty.length;
      return true;
    }

   private:
    ChangeList& list_;
    uint64_t limit_;
  };
  const ChangeId id = TRY(format::parse_change_id(since));
  const Catalog::NameSeen& seen = TRY(disks_.find(disk))->second;
  const format::Uuid uuid = seen.named.uuid;
  TRY(disks_.open_disk(io, seen));
  const auto tracker = find(uuid);
  if (tracker == nullptr) {
    return fail(Errc::invalid, "disk '{}': full copy needed because its changes are not tracked",
                disk);
  }
  const uint64_t counter = TRY(tracker->check(id));
  if (offset > tracker->bytes()) {
    return fail(Errc::invalid, "disk '{}': offset {} is behind its end at {}", disk, offset,
                tracker->bytes());
  }
  ChangeList list;
  list.since = since;
  list.now = format::text_of(tracker->now());
  list.block_bytes = tracker->block_bytes();
  list.disk_bytes = tracker->bytes();
  Page page(list, std::clamp<uint64_t>(limit, 1, kChangeExtentsMax));
  TRY(tracker->query(io, counter, {}, {offset, tracker->bytes() - offset}, page));
  return list;
}

Result<std::vector<ApplicationInfo>> TrackingImpl::applications(Io& io, std::string_view disk) {
  const Catalog::NameSeen& seen = TRY(disks_.find(disk))->second;
  const format::Uuid uuid = seen.named.uuid;
  TRY(disks_.open_disk(io, seen));
  const auto tracker = find(uuid);
  std::vector<ApplicationInfo> infos;
  for (const auto& [name, of] : std::as_const(disks_.catalog_).applications(uuid)) {
    const ApplicationRecord& record = of.application;
    ApplicationInfo info;
    info.name = name;
    info.change_id = id_text(uuid, record.branch, record.counter);
    if (record.has_previous == std::byte{1}) {
      info.previous = id_text(uuid, record.branch, record.previous);
    }
    info.began_ns = static_cast<int64_t>(record.began_ns.get());
    info.current = tracker != nullptr && tracker->check({uuid, record.branch, record.counter});
    infos.push_back(std::move(info));
  }
  return infos;
}

TrackingInfo TrackingImpl::describe(const ChangeTracker& tracker) const {
  const ChangeCounters& counters = tracker.counters();
  TrackingInfo info;
  info.disk = tracker.name();
  info.active = static_cast<bool>(tracker.ready());
  info.change_id = format::text_of(tracker.now());
  info.block_bytes = tracker.block_bytes();
  info.memory_bytes = tracker.memory_bytes();
  info.applications = std::as_const(disks_.catalog_).applications(tracker.disk()).size();
  info.events = counters.events;
  info.flushes = counters.flushes;
  info.marks = counters.marks;
  info.intent_misses = counters.intent_misses;
  info.log_pages = counters.log_pages;
  info.recovered_bytes = counters.recovered_blocks * tracker.block_bytes();
  info.lost_log_pages = counters.lost_log_pages;
  return info;
}

Result<TrackingInfo> TrackingImpl::info(Io& io, std::string_view disk) {
  const Catalog::NameSeen& seen = TRY(disks_.find(disk))->second;
  const format::Uuid uuid = seen.named.uuid;
  TrackingInfo untracked;
  untracked.disk = disk;
  if (!disks_.catalog_.changes().contains(uuid)) return untracked;
  TRY(disks_.open_disk(io, seen));
  const auto tracker = find(uuid);
  return tracker == nullptr ? untracked : describe(*tracker);
}

std::vector<TrackingInfo> TrackingImpl::tracked() const {
  std::vector<TrackingInfo> infos;
  for (const auto& [disk, record] : disks_.catalog_.changes()) {
    if (const auto tracker = find(disk)) infos.push_back(describe(*tracker));
  }
  std::ranges::sort(infos, {}, &TrackingInfo::disk);
  return infos;
}

class TrackingImpl::View final : public ChangeView {
 public:
  View(TrackingImpl& tracking, const format::Uuid& disk, std::string application,
       std::optional<format::SnapshotEvent> event)
      : tracking_(tracking),
        disk_(disk),
        application_(std::move(application)),
        event_(std::move(event)) {}

  Result<void> changed(Io& io, Range range, ChangeSink& sink) override {
    const auto tracker = tracking_.find(disk_);
    const std::optional<ChangeId> since = asked();
    if (tracker == nullptr || !since || !tracker->check(*since) ||
        !range.within(tracker->bytes())) {
      sink.add(range);  // Not known, so it counts as changed.
      return ok;
    }
    std::optional<uint64_t> until;
    if (event_) until = event_->counter;
    return tracker->query(io, since->counter, until, range, sink);
  }

 private:
  // Since when; nothing when a full copy is needed.
  std::optional<ChangeId> asked() const {
    if (event_) {
      if (!event_->has_previous) return {};
      return ChangeId{disk_, event_->branch, event_->previous};
    }
    const auto& all = std::as_const(tracking_.disks_.catalog_).applications(disk_);
    const auto found = all.find(application_);
    if (found == all.end()) return {};
    const ApplicationRecord& record = found->second.application;
    return ChangeId{disk_, record.branch, record.counter};
  }

  TrackingImpl& tracking_;
  format::Uuid disk_;
  std::string application_;
  std::optional<format::SnapshotEvent> event_;  // Of a snapshot.
};

Result<std::vector<Tracking::NamedView>> TrackingImpl::views(Io& io, std::string_view name) {
  const Named named = TRY(disks_.find_any(name))->named;
  std::vector<NamedView> views;
  if (named.kind == format::RecordKind::disk) {
    for (const auto& [application, of] : std::as_const(disks_.catalog_).applications(named.uuid)) {
      views.push_back(
          {application, std::make_shared<View>(*this, named.uuid, application, std::nullopt)});
    }
    return views;
  }
  if (!named.event || named.event->application.empty()) return views;
  const Catalog::NameSeen& disk = TRY(disks_.find(name.substr(0, name.find('@'))))->second;
  TRY(disks_.open_disk(io, disk));
  const std::string& application = named.event->application;
  views.push_back(
      {application, std::make_shared<View>(*this, named.disk, application, named.event)});
  return views;
}

// --- in the background

void TrackingImpl::start_background() {
  if (!pool_.background()) return;
  io_.spawn(flusher_, [this] { run_flusher(io_); });
}

bool TrackingImpl::any_at_work() const {
  return std::ranges::any_of(trackers_, [](const auto& one) { return one.second->at_work(); });
}

void TrackingImpl::run_flusher(Io& io) {
  constexpr Duration kTick = std::chrono::milliseconds(100);
  while (!stopping_) {
    if (!any_at_work() || !pool_.writable()) {
      io.park(due_);
      continue;
    }
    io.sleep(kTick);
    const auto all = trackers_;
    for (const auto& [disk, tracker] : all) {
      if (stopping_ || !tracker->wants_flush(io.now())) continue;
      const Result<void> flushed = tracker->flush(io);
      if (flushed) continue;
      log(LogLevel::error, "disk '{}': its changes stay in memory: {}", tracker->name(),
          text_of(flushed.error()));
    }
  }
}

}  // namespace firn::disk
