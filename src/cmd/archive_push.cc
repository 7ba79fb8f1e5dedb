// SPDX-License-Identifier: Apache-2.0
// firn archive push: a snapshot of the pool, read over NBD, into an archive. What changed is what
// the pool's maps say, against the newest snapshot that both sides have.
#include <algorithm>

#include "archive/push.h"
#include "cmd/archive_session.h"
#include "cmd/commands.h"
#include "cmd/lanes.h"
#include "cmd/print.h"
#include "cmd/progress.h"
#include "cmd/session.h"
#include "engine/answer.h"
#include "format/changes.h"
#include "wire/text.h"

namespace firn::cmd {
namespace {

using archive::TouchedRun;
using wire::ControlRequest;
using wire::ControlVerb;

constexpr uint64_t kPage = 10'000;

class NbdSource final : public archive::PushSource {
 public:
  explicit NbdSource(std::vector<NbdClient*>& clients) : clients_(clients) {}
  unsigned lanes() const override { return static_cast<unsigned>(clients_.size()); }
  Result<void> read(Io&, unsigned lane, uint64_t at, Bytes into) override {
    return clients_[lane]->read(at, into);
  }

 private:
  std::vector<NbdClient*>& clients_;
};

// What the pool says: allocated, or different from `base`.
Result<std::vector<TouchedRun>> extents(Session& session, const std::string& name,
                                        const std::string& base) {
  ControlRequest request{.verb = ControlVerb::extents, .name = name};
  request.base = base;
  request.limit = kPage;
  std::vector<TouchedRun> runs;
  while (true) {
    const std::string answer = TRY(session.ask(request));
    for (const ExtentLine& each : extents_of(answer)) {
      const uint64_t first = each.offset / kGrainBytes;
      const uint64_t end = (each.offset + each.length + kGrainBytes - 1) / kGrainBytes;
      if (first >= end || end > format::kArchiveGrainsMax ||
          (!runs.empty() && first < runs.back().grain + runs.back().count)) {
        return fail(Errc::io, "the pool's answer about {} cannot be", name);
      }
      runs.push_back({first, end - first, each.kind != "data"});
    }
    if (flag_member(answer, "complete")) return runs;
    const uint64_t next = number_member(answer, "next");
    if (next <= request.offset) {
      return fail(Errc::io, "the pool's answer does not go on from {}", request.offset);
    }
    request.offset = next;
  }
}

struct Base {
  std::string name;  // In the pool; empty: none.
  uint32_t seq = 0;
};

// The newest snapshot that both have.
Result<Base> common_base(Session& session, const std::string& disk,
                         const archive::BaseInfo& there) {
  const std::string list = TRY(session.ask({.verb = ControlVerb::snapshot_list, .name = disk}));
  const std::vector<SnapshotLine> here = snapshots_of(list);
  for (auto row = there.complete.rbegin(); row != there.complete.rend(); ++row) {
    const std::string uuid = format::uuid_text(row->uuid);
    for (const SnapshotLine& each : here) {
      if (each.uuid == uuid) return Base{disk + "@" + each.name, row->seq};
    }
  }
  return Base();
}

// Where the snapshot can differ from the newest one in the archive.
Result<void> find_touched(Io& io, Session& session, archive::Archive& archive,
                          const std::string& name, archive::PushRequest& request,
                          std::string& base_name) {
  const archive::BaseInfo there = TRY(archive::bases_of(io, archive, request.disk_uuid));
  const Base base = TRY(common_base(session, request.disk, there));
  base_name = base.name;
  const uint64_t grains = (request.bytes + kGrainBytes - 1) / kGrainBytes;
  const std::vector<TouchedRun> whole{{0, grains, true}};
  if (base.name.empty()) {
    request.touched = TRY(extents(session, name, ""));
    request.compare = !there.complete.empty();
    if (request.compare) request.touched = archive::merged(request.touched, whole);
  } else if (base.name != name) {
    request.touched = TRY(extents(session, name, base.name));
  }
  if (there.complete.empty()) return ok;
  const format::SnapshotRow& newest = there.complete.back();
  if (!base.name.empty() && base.seq != newest.seq) {
    const std::vector<TouchedRun> since =
        TRY(archive::changed_since(io, archive, there.disk, base.seq));
    request.touched = archive::merged(request.touched, since);
  }
  std::erase_if(request.touched, [&](TouchedRun& run) {
    if (run.grain >= grains) return true;
    run.count = std::min(run.count, grains - run.grain);
    return false;
  });
  // What the disk has lost at its end reads as zeroes if it grows again.
  const uint64_t before = (newest.bytes + kGrainBytes - 1) / kGrainBytes;
  if (before > grains) request.touched.push_back({grains, before - grains, true});
  return ok;
}

Result<archive::PushRequest> request_for(Session& session, const std::string& pool,
                                         const std::string& name, bool take_over) {
  const SnapshotName parts = TRY(snapshot_name(name));
  const std::string disk = TRY(session.ask({.verb = ControlVerb::disk_info, .name = parts.disk}));
  const std::string info = TRY(session.ask({.verb = ControlVerb::snapshot_info, .name = name}));
  archive::PushRequest request;
  request.disk = parts.disk;
  request.name = parts.snapshot;
  request.disk_uuid = TRY(format::parse_uuid(text_member(disk, "uuid")));
  request.snapshot_uuid = TRY(format::parse_uuid(text_member(info, "uuid")));
  request.bytes = number_member(info, "bytes");
  request.created_ns = time_of_text(text_member(info, "created"));
  request.take_over = take_over;
  request.holder = pool;
  return request;
}

std::string report_json(const std::string& name, const std::string& base,
                        const archive::PushReport& report) {
  return fmt::format(
      R"({{"snapshot":{},"base":{},"read_bytes":{},"new_bytes":{},"duplicate_bytes":{},)"
      R"("unchanged_bytes":{},"zero_bytes":{},"stored_bytes":{},"segments":{},"extents":{}}})",
      engine::quoted(name), base.empty() ? "null" : engine::quoted(base), report.read_bytes,
      report.new_grains * kGrainBytes, report.duplicate_grains * kGrainBytes,
      report.unchanged_grains * kGrainBytes, report.zero_grains * kGrainBytes, report.stored_bytes,
      report.segments, report.extents);
}

// One push of a disk at a time from this pool: who holds the lock knows that an unfinished one in
// the archive, of the same holder, has died.
Result<std::unique_ptr<File>> lock_push(Io& io, const std::string& pool, const std::string& disk,
                                        const format::Uuid& uuid) {
  const std::string directory = pool + "/archive";
  const Result<void> made = io.make_directory(directory);
  if (!made && made.error().code != Errc::exists) return made.error();
  const std::string path = fmt::format("{}/{}.lock", directory, format::uuid_text(uuid));
  std::unique_ptr<File> file = TRY(io.open(path, {.create = true}));
  const Result<void> locked = io.lock(*file, /*exclusive=*/true);
  if (locked) return file;
  if (locked.error().code != Errc::busy) return locked.error();
  return fail(Errc::busy, "disk {} is being pushed by another command now", disk);
}

}  // namespace

Result<int> run_archive_push(FiberIo& io, const Arguments& arguments) {
  const std::string& name = arguments.name;
  TRY(wire::check_any_name(name));
  std::unique_ptr<Session> session = TRY(Session::open(io, arguments.pool, Session::Purpose::look));
  archive::PushRequest request =
      TRY(request_for(*session, arguments.pool, name, arguments.archive.take_over));
  request.holder = io.identity().substr(0, io.identity().find(' ')) + " " + arguments.pool;
  const std::unique_ptr<File> lock =
      TRY(lock_push(io, arguments.pool, request.disk, request.disk_uuid));
  std::unique_ptr<ArchiveSession> archive =
      TRY(ArchiveSession::open(io, arguments.archive, ArchiveSession::Purpose::change));
  const std::string socket = TRY(session->socket_of(name));
  std::string base;
  archive::PushReport report;
  TRY(find_touched(io, *session, archive->archive(), name, request, base));
  {
    Progress progress("pushing " + name);
    TRY(with_lanes(io, socket, name, [&](std::vector<NbdClient*>& clients) -> Result<void> {
      NbdSource source(clients);
      report = TRY(archive::push(io, archive->archive(), request, source,
                                 [&](uint64_t done, uint64_t total) {
                                   progress.show(100.0 * static_cast<double>(done) /
                                                 static_cast<double>(std::max<uint64_t>(total, 1)));
                                 }));
      return ok;
    }));
  }
  TRY(archive->close());
  TRY(session->close());
  if (arguments.json) {
    TRY(print(indented(report_json(name, base, report))));
    return kDone;
  }
  TRY(print(fmt::format("{}: {} new of {} read, stored in {}{}\n", name,
                        wire::text_of_size(report.new_grains * kGrainBytes),
                        wire::text_of_size(report.read_bytes),
                        wire::text_of_size(report.stored_bytes),
                        base.empty() ? "" : fmt::format("; changes since {}", base))));
  return kDone;
}

}  // namespace firn::cmd
