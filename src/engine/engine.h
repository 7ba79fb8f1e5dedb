// SPDX-License-Identifier: Apache-2.0
// Engine: one open pool with its disks, and the answer to everything the control protocol can ask
// of it. The daemon and the command line without a daemon are the same Engine.
//
// Contract:
//  E1  answer() checks what wire/ could not know (which settings exist, what a name is reserved
//      for), calls one verb of store/ or disk/, and says the outcome as JSON. It decides nothing
//      else.
//  E2  Several answers may be under way at once on the shard's fibers.
//  E3  open() waits for a holder that was killed to be gone altogether; one that lives is
//      Errc::busy at once.
//  E4  close() makes everything durable and gives the lock back; without it the next open replays.
//
// Does not listen anywhere and knows no front end (see service.h).
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "disk/disks.h"
#include "engine/answer.h"
#include "engine/disk_paths.h"
#include "engine/instant.h"
#include "store/pool.h"
#include "wire/control.h"

namespace firn::engine {

// A disk that is being imported has this suffix until all of it is durable. Nobody can create such
// a name by hand, and front ends other than the import's own do not offer it.
inline constexpr std::string_view kImportSuffix = ".importing";
inline bool is_import(std::string_view name) { return name.ends_with(kImportSuffix); }

class Engine {
 public:
  static Result<std::unique_ptr<Engine>> open(Io& io, const std::string& directory,
                                              const store::PoolSettings& settings);
  ~Engine();
  Result<void> close(Io& io);

  // `request` as decode_control gives it. Errc::unsupported for disk_socket, which needs a daemon.
  Result<std::string> answer(Io& io, const wire::ControlRequest& request, const Service& service);

  store::Pool& pool() { return *pool_; }
  disk::Disks& disks() { return *disks_; }
  DiskPaths& paths() { return paths_; }
  Instant& instant() { return instant_; }

 private:
  Engine(std::unique_ptr<store::Pool> pool, std::unique_ptr<disk::Disks> disks);
  Result<std::string> create(Io& io, const wire::ControlRequest& request);
  Result<std::string> set(Io& io, const wire::ControlRequest& request);
  Result<std::string> change(Io& io, const wire::ControlRequest& request);
  Result<std::string> changes(Io& io, const wire::ControlRequest& request);
  Result<std::string> look(Io& io, const wire::ControlRequest& request);
  // snapshots.cc
  Result<std::string> make_snapshot(Io& io, const wire::ControlRequest& request);
  Kept keep_after_snapshot(Io& io, std::string_view disk);
  Result<std::string> unmake(Io& io, const wire::ControlRequest& request);
  Result<void> remove_disk(Io& io, std::string_view name, bool snapshots_too);
  Result<std::string> consolidate(Io& io, const wire::ControlRequest& request);
  // What cannot be done with a disk of which parts are still elsewhere.
  Result<void> check_arrived(const wire::ControlRequest& request) const;
  Result<std::string> disk(Io& io, std::string_view name);

  std::unique_ptr<store::Pool> pool_;
  std::unique_ptr<disk::Disks> disks_;
  Instant instant_;
  DiskPaths paths_;
};

}  // namespace firn::engine
