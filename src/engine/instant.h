// SPDX-License-Identifier: Apache-2.0
// Instant: disks that are served while they are fetched from an archive.
//
//  T1  A disk has the setting disk::kBackedKey, which names the archive, until all of it is here;
//      it is removed in one transaction after everything is durable. So a daemon that is started
//      again goes on.
//  T2  All who attach such a disk get the same BackedDisk (disk/backed.h), and only through it:
//      without a daemon the disk is refused.
//  T3  A store that cannot be reached is tried again for as long as it takes.
//  T4  The settings hold places, never secrets.
//  T5  Guests go first (P6): while any guest of the pool is busy, fetching rests after each step.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>

#include "disk/backed.h"
#include "disk/disks.h"
#include "engine/settings.h"
#include "policy/job_pace.h"
#include "store/pool.h"

namespace firn::engine {

// What is asked for: texts by the names url, snapshot, key-file and passphrase-file.
using InstantFrom = std::map<std::string, std::string>;

bool is_arriving(const Settings& settings);
// Errc::busy, with what is to be done, while the disk of this name is on its way.
Result<void> refuse_arriving(const disk::Disks& disks, std::string_view disk,
                             std::string_view verb);

class Instant {
 public:
  Instant(store::Pool& pool, disk::Disks& disks);
  ~Instant();

  // In a daemon: from here on disks are fetched. `io` outlives end().
  void begin(Io& io);
  void end(Io& io);

  // Makes the disk `name`, which is served from then on.
  Result<void> make(Io& io, const std::string& name, const InstantFrom& from);
  // The device that stands for the disk; nullptr: the disk itself does.
  Result<std::shared_ptr<BlockDevice>> device(const disk::DiskInfo& info,
                                              const std::shared_ptr<BlockDevice>& disk);
  // Nobody fetches the disk any more, until resume(); to delete it.
  void pause(Io& io, const std::string& uuid);
  void resume(Io& io, std::string_view name);

  struct Progress {
    disk::BackedDisk::Progress disk;
    std::string error;  // Why it does not go on now.
  };
  std::optional<Progress> progress(const std::string& uuid) const;
  // Of all disks that are on their way, by name.
  std::map<std::string, Progress> all() const;
  // Of all disks since the start.
  const disk::Fetched& fetched() const { return *fetched_; }

 private:
  struct Arriving;
  Result<void> make_named(Io& io, const std::string& name, const InstantFrom& from);
  void run(Io& io, Arriving& arriving);
  static void rest(Io& io, const Arriving& arriving, Duration how_long);
  std::string name_of(const std::string& uuid) const;
  Result<bool> step(Io& io, Arriving& arriving);
  Result<void> finish(Io& io, const Arriving& arriving);
  std::shared_ptr<disk::BackedDisk> backed(const disk::DiskInfo& info,
                                           const std::shared_ptr<BlockDevice>& disk);

  store::Pool& pool_;
  disk::Disks& disks_;
  const std::shared_ptr<disk::Fetched> fetched_ = std::make_shared<disk::Fetched>();
  bool running_ = false;
  std::set<std::string> making_;                               // Names of what make() is about.
  std::map<std::string, std::unique_ptr<Arriving>> arriving_;  // By uuid.
  std::map<std::string, std::weak_ptr<disk::BackedDisk>> devices_;  // T2; by uuid.
};

}  // namespace firn::engine
