// SPDX-License-Identifier: Apache-2.0
// firn archive create | list | delete | clean | scrub | rebuild | check | stats | keep.
#include <algorithm>
#include <filesystem>

#include "archive/audit.h"
#include "archive/clean.h"
#include "archive/remove.h"
#include "cmd/archive_session.h"
#include "cmd/commands.h"
#include "cmd/print.h"
#include "cmd/progress.h"
#include "engine/answer.h"
#include "io/open_store.h"
#include "policy/retention.h"
#include "wire/text.h"

namespace firn::cmd {
namespace {

using archive::Archive;
using archive::DiskEntry;
using format::SnapshotRow;
using format::SnapshotState;

Result<int> create(FiberIo& io, const Arguments& arguments) {
  const ArchiveArguments& wanted = arguments.archive;
  if (wanted.segment_bytes < format::kSegmentBytesMin ||
      wanted.segment_bytes > format::kSegmentBytesMax) {
    return fail(Errc::invalid, "segments of {} bytes: give 4M to 64M", wanted.segment_bytes);
  }
  archive::CreateHow how;
  how.segment_bytes = wanted.segment_bytes;
  how.level = wanted.level;
  how.credentials = TRY(credentials_of(io, wanted));
  const std::unique_ptr<ObjectStore> store = TRY(open_store(io, wanted.url, {.create = true}));
  const format::ArchiveLabel label = TRY(archive::create_archive(io, *store, how));
  {  // So that readers find an empty tree, not none.
    std::unique_ptr<ArchiveSession> session =
        TRY(ArchiveSession::open(io, wanted, ArchiveSession::Purpose::change));
    TRY(session->archive().publish(io));
    TRY(session->close());
  }
  const bool encrypted = how.credentials.source != format::KeySource::none;
  if (arguments.json) {
    TRY(print(indented(fmt::format(R"({{"url":{},"uuid":"{}","encrypted":{}}})",
                                   engine::quoted(wanted.url), format::uuid_text(label.uuid),
                                   encrypted))));
    return kDone;
  }
  TRY(print(fmt::format("archive {}: {}{}\n", wanted.url, format::uuid_text(label.uuid),
                        encrypted ? ", encrypted" : "")));
  return kDone;
}

std::string json_of(const SnapshotRow& row) {
  return fmt::format(
      R"({{"disk":{},"name":{},"uuid":"{}","state":"{}","bytes":{},"created":"{}","pushed":"{}",)"
      R"("changed_bytes":{},"new_bytes":{},"stored_bytes":{}}})",
      engine::quoted(row.disk), engine::quoted(row.name), format::uuid_text(row.uuid),
      format::name_of(row.state), row.bytes, engine::text_of_time(row.created_ns),
      engine::text_of_time(row.pushed_ns), row.grains * kGrainBytes, row.new_grains * kGrainBytes,
      row.stored_bytes);
}

Result<int> list(FiberIo& io, const Arguments& arguments) {
  std::unique_ptr<ArchiveSession> session =
      TRY(ArchiveSession::open(io, arguments.archive, ArchiveSession::Purpose::look));
  Archive& archive = session->archive();
  std::string text = arguments.json ? "[" : "";
  size_t count = 0;
  for (const DiskEntry& disk : TRY(archive.disks(io))) {
    for (const SnapshotRow& row : TRY(archive.snapshots(io, disk.number))) {
      if (!arguments.name.empty() && row.disk != arguments.name) continue;
      if (arguments.json) {
        text += (count == 0 ? "" : ",") + json_of(row);
      } else {
        if (count == 0) {
          text += fmt::format("{:<40} {:<20} {:>9} {:>9} {:>9}\n", "SNAPSHOT", "CREATED", "SIZE",
                              "CHANGED", "STORED");
        }
        const bool complete = row.state == SnapshotState::complete;
        text += fmt::format(
            "{:<40} {:<20} {:>9} {:>9} {:>9}{}\n", wire::printable(row.disk + "@" + row.name),
            engine::text_of_time(row.created_ns), wire::text_of_size(row.bytes),
            wire::text_of_size(row.grains * kGrainBytes), wire::text_of_size(row.stored_bytes),
            complete ? "" : fmt::format("  {}", format::name_of(row.state)));
      }
      ++count;
    }
  }
  TRY(session->close());
  TRY(print(arguments.json ? indented(text + "]") : text));
  return kDone;
}

Result<int> remove(FiberIo& io, const Arguments& arguments) {
  const SnapshotName wanted = TRY(snapshot_name(arguments.name));
  std::unique_ptr<ArchiveSession> session =
      TRY(ArchiveSession::open(io, arguments.archive, ArchiveSession::Purpose::change));
  Archive& archive = session->archive();
  const Archive::Found found = TRY(archive.find(io, wanted.disk, wanted.snapshot));
  TRY(archive::delete_snapshot(io, archive, found));
  const archive::RemovalReport report = TRY(archive::finish_deletions(io, archive));
  TRY(session->close());
  if (arguments.json) {
    TRY(print(
        indented(fmt::format(R"({{"deleted":{},"freed_bytes":{}}})", engine::quoted(arguments.name),
                             report.freed_chunks * kGrainBytes))));
  }
  return kDone;
}

Result<int> clean(FiberIo& io, const Arguments& arguments) {
  std::unique_ptr<ArchiveSession> session =
      TRY(ArchiveSession::open(io, arguments.archive, ArchiveSession::Purpose::change));
  archive::CleanHow how;
  how.garbage = arguments.archive.garbage;
  how.rule.min_age_ns = static_cast<int64_t>(arguments.archive.min_age_seconds) * 1'000'000'000;
  const archive::CleanReport report = TRY(archive::clean(io, session->archive(), how));
  TRY(session->archive().meta().lsm().compact(io));
  TRY(session->archive().meta().lsm().collect(io));
  TRY(session->close());
  if (arguments.json) {
    TRY(print(indented(fmt::format(
        R"({{"deleted_snapshots":{},"removed_segments":{},"removed_bytes":{},"shrunk":{},)"
        R"("coalesced":{},"made":{},"freed_bytes":{},"garbage_objects":{},"waiting_segments":{}}})",
        report.removals.snapshots, report.removed_segments, report.removed_bytes, report.shrunk,
        report.coalesced, report.made, report.freed_bytes, report.garbage_objects,
        report.waiting_segments))));
    return kDone;
  }
  TRY(print(fmt::format(
      "{} segments removed ({}), {} shrunk, {} put together as {}, {} less; {} empty ones wait\n",
      report.removed_segments, wire::text_of_size(report.removed_bytes), report.shrunk,
      report.coalesced, report.made, wire::text_of_size(report.freed_bytes),
      report.waiting_segments)));
  return kDone;
}

std::string json_of(const archive::ScrubDamage& damage) {
  std::string hurts;
  for (const archive::ScrubDamage::Hurt& hurt : damage.hurts) {
    std::string ranges;
    for (const Range& range : hurt.ranges) {
      ranges += fmt::format(R"({}{{"offset":{},"length":{}}})", ranges.empty() ? "" : ",", range.at,
                            range.length);
    }
    hurts += fmt::format(R"({}{{"snapshot":{},"ranges":[{}]}})", hurts.empty() ? "" : ",",
                         engine::quoted(hurt.snapshot), ranges);
  }
  return fmt::format(R"({{"object":{},"why":{},"hurts":[{}]}})", engine::quoted(damage.object),
                     engine::quoted(damage.why), hurts);
}

std::string text_of(const archive::ScrubDamage& damage) {
  std::string text = fmt::format("{}: {}\n", damage.object, damage.why);
  for (const archive::ScrubDamage::Hurt& hurt : damage.hurts) {
    text += fmt::format("  {}:", hurt.snapshot);
    for (const Range& range : hurt.ranges) text += fmt::format(" {}+{}", range.at, range.length);
    text += '\n';
  }
  return text;
}

Result<int> scrub(FiberIo& io, const Arguments& arguments) {
  std::unique_ptr<ArchiveSession> session =
      TRY(ArchiveSession::open(io, arguments.archive, ArchiveSession::Purpose::verify));
  archive::ScrubReport report;
  {
    Progress progress("scrubbing");
    report = TRY(archive::scrub(io, session->archive(), [&](uint64_t done, uint64_t total) {
      progress.show(100.0 * static_cast<double>(done) /
                    static_cast<double>(std::max<uint64_t>(total, 1)));
    }));
  }
  TRY(session->close());
  std::string text;
  for (const archive::ScrubDamage& damage : report.damages) {
    if (arguments.json) {
      text += (text.empty() ? "" : ",") + json_of(damage);
    } else {
      text += text_of(damage);
    }
  }
  if (arguments.json) {
    TRY(print(indented(
        fmt::format(R"({{"clean":{},"objects":{},"bytes":{},"groups":{},"damaged":[{}]}})",
                    report.damages.empty(), report.objects, report.bytes, report.groups, text))));
  } else {
    TRY(print(text + fmt::format("{} objects, {}: {}\n", report.objects,
                                 wire::text_of_size(report.bytes),
                                 report.damages.empty()
                                     ? "all as it was written"
                                     : fmt::format("{} are damaged", report.damages.size()))));
  }
  return report.damages.empty() ? kDone : kFailed;
}

std::string json_of(const std::vector<std::string>& findings) {
  std::string text;
  for (const std::string& each : findings) {
    text += (text.empty() ? "" : ",") + engine::quoted(each);
  }
  return "[" + text + "]";
}
std::string lines_of(const std::vector<std::string>& findings) {
  std::string text;
  for (const std::string& each : findings) text += wire::printable(each, 500) + "\n";
  return text;
}

Result<int> rebuild(FiberIo& io, const Arguments& arguments) {
  const std::unique_ptr<ObjectStore> store = TRY(open_store(io, arguments.archive.url));
  const archive::Credentials credentials = TRY(credentials_of(io, arguments.archive));
  const std::string log = TRY(ArchiveSession::temporary_directory());
  const Result<archive::RebuildReport> report = archive::rebuild(io, *store, credentials, log);
  std::error_code error;
  std::filesystem::remove_all(log, error);
  if (!report) return report.error();
  if (arguments.json) {
    TRY(print(indented(
        fmt::format(R"({{"objects":{},"segments":{},"snapshots":{},"blocks":{},"findings":{}}})",
                    report->objects, report->segments, report->snapshots, report->chunks,
                    json_of(report->findings)))));
  } else {
    TRY(print(lines_of(report->findings) +
              fmt::format("{} snapshots from {} segments\n", report->snapshots, report->segments)));
  }
  return report->findings.empty() ? kDone : kFailed;
}

Result<int> audit(FiberIo& io, const Arguments& arguments, bool findings) {
  std::unique_ptr<ArchiveSession> session =
      TRY(ArchiveSession::open(io, arguments.archive, ArchiveSession::Purpose::look));
  const archive::AuditReport report = TRY(archive::audit(io, session->archive()));
  const format::ArchiveLabel& label = session->archive().label();
  const uint64_t referred = report.references * kGrainBytes;
  const std::string json = fmt::format(
      R"({{"uuid":"{}","encrypted":{},"disks":{},"snapshots":{},"clean":{},"segments":{},)"
      R"("stored_bytes":{},"live_bytes":{},"dead_bytes":{},"referred_bytes":{},"findings":{}}})",
      format::uuid_text(label.uuid), label.key_source != std::byte{}, report.disks,
      report.snapshots, report.clean(), report.segments, report.stored_bytes,
      report.live_blocks * kGrainBytes, report.dead_blocks * kGrainBytes, referred,
      json_of(report.findings));
  TRY(session->close());
  if (arguments.json) {
    TRY(print(indented(json)));
  } else {
    TRY(print(fmt::format(
        "{}{} snapshots of {} disks refer to {} in {} of blocks ({} of them dead), stored in {}\n",
        lines_of(report.findings), report.snapshots, report.disks, wire::text_of_size(referred),
        wire::text_of_size((report.live_blocks + report.dead_blocks) * kGrainBytes),
        wire::text_of_size(report.dead_blocks * kGrainBytes),
        wire::text_of_size(report.stored_bytes))));
  }
  return report.clean() || !findings ? kDone : kFailed;
}

Result<int> keep(FiberIo& io, const Arguments& arguments) {
  const ArchiveArguments& wanted = arguments.archive;
  const policy::RetentionRule rule{wanted.last,   wanted.hourly,  wanted.daily,
                                   wanted.weekly, wanted.monthly, wanted.yearly};
  if (rule.empty()) return fail(Errc::invalid, "keep what? Give --last, --daily or the like");
  std::unique_ptr<ArchiveSession> session = TRY(ArchiveSession::open(
      io, wanted,
      wanted.dry_run ? ArchiveSession::Purpose::look : ArchiveSession::Purpose::change));
  Archive& archive = session->archive();
  std::vector<Archive::Found> all;
  std::vector<int64_t> created;
  for (const DiskEntry& disk : TRY(archive.disks(io))) {
    if (disk.row.name != arguments.name) continue;
    for (SnapshotRow& row : TRY(archive.snapshots(io, disk.number))) {
      if (row.state != SnapshotState::complete) continue;
      created.push_back(row.created_ns);
      all.push_back({disk, std::move(row)});
    }
  }
  if (all.empty()) {
    return fail(Errc::not_found, "archive {}: there is no disk {}", wanted.url, arguments.name);
  }
  std::vector<std::string> gone;
  for (const size_t i : policy::choose_expired(rule, created)) {
    gone.push_back(all[i].snapshot.disk + "@" + all[i].snapshot.name);
    if (!wanted.dry_run) TRY(archive::delete_snapshot(io, archive, all[i]));
  }
  if (!wanted.dry_run) TRY(archive::finish_deletions(io, archive));
  TRY(session->close());
  if (arguments.json) {
    TRY(print(indented(
        fmt::format(R"({{"deleted":{},"kept":{}}})", json_of(gone), all.size() - gone.size()))));
  } else {
    TRY(print(lines_of(gone)));
  }
  return kDone;
}

}  // namespace

Result<int> run_archive_command(FiberIo& io, const Arguments& arguments) {
  const Command command = arguments.command;
  if (command == Command::archive_create) return create(io, arguments);
  if (command == Command::archive_list) return list(io, arguments);
  if (command == Command::archive_delete) return remove(io, arguments);
  if (command == Command::archive_clean) return clean(io, arguments);
  if (command == Command::archive_scrub) return scrub(io, arguments);
  if (command == Command::archive_rebuild) return rebuild(io, arguments);
  if (command == Command::archive_keep) return keep(io, arguments);
  return audit(io, arguments, /*findings=*/command == Command::archive_check);
}

}  // namespace firn::cmd
