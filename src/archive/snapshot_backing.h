// SPDX-License-Identifier: Apache-2.0
// A snapshot in an archive as what a disk rests on until it is fetched (disk/backed.h).
//
//  N1  The archive is opened when it is first needed, and again when what was found there does not
//      hold any more: others clean it meanwhile.
//  N2  At most kRangesInFlight ranges are asked for at a time, for one fetch().
//  N3  Credentials are read from where they lie each time that the archive is opened; only their
//      places are kept.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "archive/archive.h"
#include "archive/restore.h"
#include "disk/backed.h"
#include "io/mutex.h"

namespace firn::archive {

struct SnapshotPlace {
  std::string url;
  std::string disk;  // Names or uuids.
  std::string snapshot;
  std::string key_file;  // Of an encrypted archive: one of the two.
  std::string passphrase_file;
};

class SnapshotBacking final : public disk::Backing {
 public:
  // How the store of a place is reached; open_store() as a rule.
  using Opener = std::function<Result<std::unique_ptr<ObjectStore>>(Io&, const SnapshotPlace&)>;
  explicit SnapshotBacking(SnapshotPlace place);
  SnapshotBacking(SnapshotPlace place, Opener opener)
      : place_(std::move(place)), opener_(std::move(opener)) {}

  Result<void> fetch(Io& io, uint64_t first, uint64_t count, const Wanted& wanted,
                     const Sink& sink) override;
  // Opens the archive, to see that it is there and what it has.
  Result<Archive::Found> look(Io& io);

 private:
  struct Opened {
    explicit Opened(Io& with) : io(with) {}
    ~Opened();
    Io& io;
    std::unique_ptr<ObjectStore> store;
    std::unique_ptr<Archive> archive;
    Archive::Found found;
  };
  Result<void> fetch_from_archive(Io& io, uint64_t first, uint64_t count, const Wanted& wanted,
                                  const Sink& sink, bool& sink_failed);
  Result<std::shared_ptr<Opened>> opened(Io& io);
  Result<std::shared_ptr<Opened>> open(Io& io) const;

  const SnapshotPlace place_;
  const Opener opener_;
  Mutex opening_;
  std::shared_ptr<Opened> opened_;
};

}  // namespace firn::archive
