// SPDX-License-Identifier: Apache-2.0
// firn restore: a disk made from a snapshot in an archive. Like an import it fills a disk with a
// reserved name, which gets its own name when everything is durable.
#include <algorithm>
#include <filesystem>

#include "archive/restore.h"
#include "cmd/archive_session.h"
#include "cmd/commands.h"
#include "cmd/lanes.h"
#include "cmd/print.h"
#include "cmd/progress.h"
#include "cmd/session.h"
#include "cmd/staged_disk.h"
#include "engine/answer.h"
#include "wire/text.h"

namespace firn::cmd {
namespace {

using wire::ControlVerb;

constexpr uint64_t kWriteBytesMax = 1 * kMiB;
constexpr size_t kNamed = 3;  // Damaged ranges in an error's sentence.

class NbdTarget final : public archive::RestoreTarget {
 public:
  explicit NbdTarget(std::vector<NbdClient*>& clients) : clients_(clients) {}
  unsigned lanes() const override { return static_cast<unsigned>(clients_.size()); }
  Result<void> write(Io&, unsigned lane, uint64_t at, View from) override {
    while (!from.empty()) {
      const View piece = from.first(std::min<uint64_t>(from.size(), kWriteBytesMax));
      TRY(clients_[lane]->write(at, piece));
      at += piece.size();
      from = from.subspan(piece.size());
    }
    return ok;
  }

 private:
  std::vector<NbdClient*>& clients_;
};

std::string text_of_damage(const archive::RestoreReport& report) {
  std::string text;
  for (size_t i = 0; i < std::min(kNamed, report.damaged.size()); ++i) {
    const archive::DamagedRange& each = report.damaged[i];
    text += fmt::format("{}{} bytes at {} ({})", i == 0 ? "" : ", ", each.range.length,
                        each.range.at, each.why);
  }
  if (report.damaged.size() > kNamed) {
    text += fmt::format(" and {} more ranges", report.damaged.size() - kNamed);
  }
  return text;
}

std::string json_of_damage(const archive::RestoreReport& report) {
  std::string text = "[";
  for (const archive::DamagedRange& each : report.damaged) {
    text += fmt::format(R"({}{{"offset":{},"length":{},"object":{},"why":{}}})",
                        text.size() == 1 ? "" : ",", each.range.at, each.range.length,
                        engine::quoted(each.object), engine::quoted(each.why));
  }
  return text + "]";
}

Result<archive::RestoreReport> fill(FiberIo& io, Session& session, archive::Archive& archive,
                                    const archive::Archive::Found& found, const std::string& staged,
                                    const std::string& name) {
  const std::string socket = TRY(session.socket_of(staged));
  archive::RestoreReport report;
  {
    Progress progress("restoring " + name);
    TRY(with_lanes(io, socket, staged, [&](std::vector<NbdClient*>& clients) -> Result<void> {
      NbdTarget target(clients);
      report = TRY(archive::restore(io, archive, found, target, [&](uint64_t done, uint64_t total) {
        progress.show(100.0 * static_cast<double>(done) /
                      static_cast<double>(std::max<uint64_t>(total, 1)));
      }));
      return ok;
    }));
  }
  session.end_socket();
  TRY(session.ask({.verb = ControlVerb::disk_flush, .name = staged}));
  return report;
}

// The daemon may have another working directory.
Result<std::string> absolute(const std::string& path) {
  if (path.empty()) return path;
  std::error_code error;
  const std::string text = std::filesystem::absolute(path, error).lexically_normal().string();
  if (error) return fail(Errc::invalid, "path {}: {}", path, error.message());
  return text;
}

Result<int> restore_instantly(FiberIo& io, const Arguments& arguments) {
  const ArchiveArguments& from = arguments.archive;
  if (from.salvage) {
    return fail(Errc::invalid,
                "--instant and --salvage exclude each other: damaged ranges fail when they are "
                "read");
  }
  const std::unique_ptr<Session> session =
      TRY(Session::open(io, arguments.pool, Session::Purpose::change));
  const bool is_url = from.url.find("://") != std::string::npos;
  const std::string url = is_url ? from.url : TRY(absolute(from.url));
  const std::string answer =
      TRY(session->ask({.verb = ControlVerb::disk_restore,
                        .name = arguments.to,
                        .settings = {{"key-file", TRY(absolute(from.key_file))},
                                     {"passphrase-file", TRY(absolute(from.passphrase_file))},
                                     {"snapshot", arguments.name},
                                     {"url", url}}}));
  TRY(session->close());
  if (arguments.json) {
    TRY(print(indented(answer)));
  } else {
    TRY(print(fmt::format("disk {}: served now, and fetched from {} meanwhile\n", arguments.to,
                          from.url)));
  }
  return kDone;
}

}  // namespace

Result<int> run_restore(FiberIo& io, const Arguments& arguments) {
  const SnapshotName wanted = TRY(snapshot_name(arguments.name));
  if (arguments.archive.instant) return restore_instantly(io, arguments);
  const std::string& name = arguments.to;
  const std::string staged = TRY(staged_name(name));
  std::unique_ptr<ArchiveSession> archive =
      TRY(ArchiveSession::open(io, arguments.archive, ArchiveSession::Purpose::look));
  const archive::Archive::Found found =
      TRY(archive->archive().find(io, wanted.disk, wanted.snapshot));
  std::unique_ptr<Session> session =
      TRY(Session::open(io, arguments.pool, Session::Purpose::change));
  TRY(make_room(*session, name, staged));
  TRY(session->ask(
      {.verb = ControlVerb::disk_create, .name = staged, .bytes = found.snapshot.bytes}));
  const auto run = [&]() -> Result<archive::RestoreReport> {
    archive::RestoreReport report =
        TRY(fill(io, *session, archive->archive(), found, staged, name));
    if (report.damaged.empty() || arguments.archive.salvage) return report;
    return fail(Errc::corrupt, "{} bytes are damaged: {}; with --salvage the rest is restored",
                report.damaged_bytes, text_of_damage(report));
  };
  const Result<archive::RestoreReport> report = run();
  if (!report) {
    const std::string what = fmt::format("disk {}: cannot restore {} from {}", name, arguments.name,
                                         arguments.archive.url);
    const Result<void> removed = remove_staged(io, *session, staged);
    return with_context(report.error(), what,
                        removed ? "no disk was made" : "what was made has the suffix .importing");
  }
  const std::string answer =
      TRY(session->ask({.verb = ControlVerb::disk_rename, .name = staged, .to = name}));
  TRY(session->close());
  TRY(archive->close());
  if (arguments.json) {
    TRY(print(indented(
        fmt::format(R"({{"disk":{},"bytes":{},"restored_bytes":{},"ranges":{},"damaged_bytes":{},)"
                    R"("damaged":{}}})",
                    engine::quoted(name), found.snapshot.bytes, report->bytes, report->ranges,
                    report->damaged_bytes, json_of_damage(*report)))));
  } else {
    TRY(print(fmt::format("disk {}: {}, {} of data, from {}\n", name,
                          wire::text_of_size(found.snapshot.bytes),
                          wire::text_of_size(report->bytes), arguments.archive.url)));
  }
  if (report->damaged.empty()) return kDone;
  return fail(Errc::corrupt,
              "disk {} was made, but {} bytes of it are damaged and read as zeroes: {}", name,
              report->damaged_bytes, text_of_damage(*report));
}

}  // namespace firn::cmd
