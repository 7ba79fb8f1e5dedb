// SPDX-License-Identifier: Apache-2.0
#include "archive/snapshot_backing.h"

#include <algorithm>

#include "base/check.h"
#include "io/open_store.h"

namespace firn::archive {
namespace {

// Somebody waits for an answer. Whoever does not, tries again anyway.
constexpr uint32_t kPatienceSeconds = 20;

Result<std::unique_ptr<ObjectStore>> open_with_patience(Io& io, const SnapshotPlace& place) {
  OpenStoreHow how;
  how.patience_s = kPatienceSeconds;
  return open_store(io, place.url, how);
}

// Of one fetch(): jobs, and the fibers that take them.
class Fetchers {
 public:
  Fetchers(Io& io, Archive& archive, std::vector<FetchJob> jobs, const disk::Backing::Sink& sink)
      : io_(io), archive_(archive), jobs_(std::move(jobs)), sink_(sink) {}

  Result<void> run() {
    Group group(io_);
    const size_t fibers = std::min<size_t>(kRangesInFlight, jobs_.size());
    for (size_t i = 1; i < fibers; ++i) {
      io_.spawn(group, [this] { take_jobs(); });
    }
    take_jobs();
    group.wait();
    return outcome_;
  }
  bool sink_failed() const { return sink_failed_; }

 private:
  void take_jobs() {
    const FetchSink sink = [this](uint64_t grain, View content) -> Result<void> {
      Result<void> given = sink_(grain, content);
      if (!given) sink_failed_ = true;
      return given;
    };
    while (outcome_ && next_ < jobs_.size()) {
      const FetchJob& job = jobs_[next_++];
      const Result<uint64_t> done = archive::fetch(io_, archive_, job, sink);
      if (!done && outcome_) outcome_ = done.error();
    }
  }

  Io& io_;
  Archive& archive_;
  const std::vector<FetchJob> jobs_;
  const disk::Backing::Sink& sink_;
  size_t next_ = 0;
  bool sink_failed_ = false;
  Result<void> outcome_;
};

}  // namespace

SnapshotBacking::SnapshotBacking(SnapshotPlace place)
    : SnapshotBacking(std::move(place), open_with_patience) {}

SnapshotBacking::Opened::~Opened() {
  if (archive != nullptr) static_cast<void>(archive->close(io).has_value());  // Only read.
}

Result<std::shared_ptr<SnapshotBacking::Opened>> SnapshotBacking::open(Io& io) const {
  auto made = std::make_shared<Opened>(io);
  made->store = TRY(opener_(io, place_));
  Archive::How how;
  how.credentials = TRY(read_credentials(io, place_.key_file, place_.passphrase_file));
  made->archive = TRY(Archive::open(io, *made->store, std::move(how)));
  made->found = TRY(made->archive->find(io, place_.disk, place_.snapshot));
  return made;
}

Result<std::shared_ptr<SnapshotBacking::Opened>> SnapshotBacking::opened(Io& io) {
  const auto only = opening_.lock(io);
  if (opened_ == nullptr) opened_ = TRY(open(io));
  return opened_;
}

Result<Archive::Found> SnapshotBacking::look(Io& io) { return TRY(opened(io))->found; }

// Whatever it is, for a guest it is an I/O error.
Result<void> SnapshotBacking::fetch(Io& io, uint64_t first, uint64_t count, const Wanted& wanted,
                                    const Sink& sink) {
  bool sink_failed = false;
  const Result<void> done = fetch_from_archive(io, first, count, wanted, sink, sink_failed);
  if (done || sink_failed) return done;
  return fail(Errc::io, "snapshot {}@{} in {}, bytes {} to {}: {}", place_.disk, place_.snapshot,
              place_.url, first * kGrainBytes, (first + count) * kGrainBytes,
              text_of(done.error()));
}

Result<void> SnapshotBacking::fetch_from_archive(Io& io, uint64_t first, uint64_t count,
                                                 const Wanted& wanted, const Sink& sink,
                                                 bool& sink_failed) {
  for (bool again = false;; again = true) {
    const std::shared_ptr<Opened> from = TRY(opened(io));
    const auto once = [&]() -> Result<void> {
      const auto region = static_cast<uint32_t>(first / format::kRegionGrains);
      const auto end = static_cast<uint32_t>((first + count - 1) / format::kRegionGrains + 1);
      std::vector<FetchJob> jobs;
      for (const FetchJob& job : TRY(plan(io, *from->archive, from->found.disk.number,
                                          from->found.snapshot.seq, region, end))) {
        FetchJob of_it = narrowed(job, [&](uint64_t grain) {
          return grain >= first && grain < first + count && wanted(grain);
        });
        if (!of_it.pieces.empty()) jobs.push_back(std::move(of_it));
      }
      Fetchers fetchers(io, *from->archive, std::move(jobs), sink);
      const Result<void> done = fetchers.run();
      sink_failed = fetchers.sink_failed();
      return done;
    };
    const Result<void> done = once();
    if (done || sink_failed) return done;
    // What the archive said when it was opened may be old: it has been cleaned since.
    if (opened_ == from) opened_.reset();
    const bool may_be_old =
        done.error().code == Errc::corrupt || done.error().code == Errc::not_found;
    if (again || !may_be_old) return done;
  }
}

}  // namespace firn::archive
