// SPDX-License-Identifier: Apache-2.0
// firn disk import | export: through qemu-img, which knows the formats, and its own NBD client; and
// seSparse through sesparse.h.
//
// Notes on the design. An import fills a disk with a reserved name and gives it its own name when
// everything is durable, so a half-made disk is never mistaken for a good one:
//   N1  create NAME.importing   N2  qemu-img convert into it   N3  flush   N4  rename to NAME
// Whatever ends it before N4 removes NAME.importing; what a kill -9 leaves, the next import of NAME
// removes. An export writes into a hidden directory beside FILE, flushes it, and renames.
#include <unistd.h>

#include <cstdio>

#include "base/units.h"
#include "cmd/child.h"
#include "cmd/commands.h"
#include "cmd/image.h"
#include "cmd/print.h"
#include "cmd/progress.h"
#include "cmd/sesparse.h"
#include "cmd/session.h"
#include "cmd/staged_disk.h"
#include "cmd/staging.h"
#include "engine/answer.h"
#include "wire/text.h"

namespace firn::cmd {
namespace {

using wire::ControlVerb;

// An image as qemu-img names it: raw bytes behind NBD. JSON, so that no character of a path has a
// meaning.
std::string nbd_image(const std::string& socket, const std::string& disk) {
  const std::string server = fmt::format(R"({{"type":"unix","path":{}}})", engine::quoted(socket));
  return fmt::format(R"(json:{{"driver":"raw","file":{{"driver":"nbd","export":{},"server":{}}}}})",
                     engine::quoted(disk), server);
}

// Generous: a hostile image that makes qemu-img spin ends some day, an honest one is never cut.
ChildLimits limits_for(uint64_t bytes) { return {uint64_t{4} * kGiB, 600 + bytes / (4 * kMiB)}; }

Result<void> convert(FiberIo& io, std::vector<std::string> command, uint64_t bytes,
                     const std::string& what) {
  Progress progress(what);
  if (progress.shown()) command.insert(command.begin() + 2, "-p");
  return run_child_well(io, command, limits_for(bytes),
                        [&](std::string_view out) { progress.take(out); });
}

// What is imported: through qemu-img, or by ourselves.
struct Source {
  ImageInfo image;
  std::optional<SesparseImage> sesparse;
};

Result<Source> look_at_source(FiberIo& io, const Arguments& arguments) {
  Source source;
  source.sesparse =
      TRY(look_at_sesparse(io, arguments.file, arguments.format, arguments.follow_references));
  if (source.sesparse.has_value()) {
    source.image.path = source.sesparse->path;
    source.image.format = "sesparse";
    source.image.bytes = source.sesparse->layout.bytes;
  } else {
    source.image =
        TRY(look_at_image(io, arguments.file, arguments.format, arguments.follow_references));
  }
  return source;
}

Result<void> fill(FiberIo& io, Session& session, const std::string& staged, const Source& source,
                  const std::string& name) {
  const std::string socket = TRY(session.socket_of(staged));
  if (source.sesparse.has_value()) {
    TRY(import_sesparse(io, *source.sesparse, socket, staged, "importing " + name));
  } else {
    TRY(convert(io,
                {"qemu-img", "convert", "-n", "--target-is-zero", "-t", "writeback", "-f",
                 source.image.format, "-O", "raw", source.image.path, nbd_image(socket, staged)},
                source.image.bytes, "importing " + name));
  }
  session.end_socket();
  TRY(session.ask({.verb = ControlVerb::disk_flush, .name = staged}));
  return ok;
}

// "qcow2" for "x.qcow2".
std::string format_of_suffix(const std::string& file) {
  for (const char* format : {"qcow2", "vmdk"}) {
    if (file.ends_with(std::string(".") + format)) return format;
  }
  return "raw";
}

std::string format_of_export(const Arguments& arguments) {
  return arguments.format.empty() ? format_of_suffix(arguments.file) : arguments.format;
}

Result<void> write_image(FiberIo& io, Session& session, const Arguments& arguments,
                         uint64_t bytes) {
  const std::string format = format_of_export(arguments);
  Staging staging(arguments.file);
  TRY(staging.make());
  const std::string socket = TRY(session.socket_of(arguments.name));
  const std::string title = "exporting " + arguments.name;
  if (format == "sesparse") {
    staging.add(sesparse_extent_of(arguments.file));
    TRY(export_sesparse(io, socket, arguments.name, staging.path(), title));
  } else {
    TRY(convert(io,
                {"qemu-img", "convert", "-f", "raw", "-O", format,
                 nbd_image(socket, arguments.name), staging.path()},
                bytes, title));
  }
  session.end_socket();
  return staging.publish(io);
}

Result<void> check_targets(const Arguments& arguments) {
  if (arguments.force) return ok;
  std::vector<std::string> targets{arguments.file};
  if (format_of_export(arguments) == "sesparse") {
    targets.push_back(sesparse_extent_of(arguments.file));
  }
  for (const std::string& target : targets) {
    if (::access(target.c_str(), F_OK) != 0) continue;
    return fail(Errc::exists, "{} exists already; give --force to replace it", target);
  }
  return ok;
}

}  // namespace

Result<int> run_import(FiberIo& io, const Arguments& arguments) {
  const std::string& name = arguments.name;
  const std::string staged = TRY(staged_name(name));
  const Source source = TRY(look_at_source(io, arguments));
  std::unique_ptr<Session> session =
      TRY(Session::open(io, arguments.pool, Session::Purpose::change));
  TRY(make_room(*session, name, staged));
  TRY(session->ask(
      {.verb = ControlVerb::disk_create, .name = staged, .bytes = source.image.bytes}));
  const Result<void> filled = fill(io, *session, staged, source, name);
  if (!filled) {
    const std::string what = fmt::format("disk {}: cannot import {}", name, arguments.file);
    const Result<void> removed = remove_staged(io, *session, staged);
    return with_context(filled.error(), what,
                        removed ? "no disk was made" : "what was made has the suffix .importing");
  }
  const std::string answer =
      TRY(session->ask({.verb = ControlVerb::disk_rename, .name = staged, .to = name}));
  TRY(session->close());
  if (arguments.json) {
    TRY(print(indented(answer)));
  } else {
    TRY(print(fmt::format("disk {}: {}, {} of data, from {} ({})\n", name,
                          wire::text_of_size(number_member(answer, "bytes")),
                          wire::text_of_size(number_member(answer, "mapped_bytes")), arguments.file,
                          source.image.format)));
  }
  return kDone;
}

Result<int> run_export(FiberIo& io, const Arguments& arguments) {
  TRY(check_targets(arguments));
  std::unique_ptr<Session> session = TRY(Session::open(io, arguments.pool, Session::Purpose::look));
  TRY(wire::check_any_name(arguments.name));
  const bool is_snapshot = !wire::split_name(arguments.name).snapshot.empty();
  const std::string info =
      TRY(session->ask({.verb = is_snapshot ? ControlVerb::snapshot_info : ControlVerb::disk_info,
                        .name = arguments.name}));
  if (!is_snapshot && number_member(info, "attached") > 0) {
    fmt::print(stderr,
               "firn: note: disk {} is in use; what is written meanwhile may or may not be in {}; "
               "a snapshot is one moment\n",
               arguments.name, arguments.file);
  }
  const Result<void> written = write_image(io, *session, arguments, number_member(info, "bytes"));
  if (!written) {
    const std::string what =
        fmt::format("{} {}: cannot export to {}", is_snapshot ? "snapshot" : "disk", arguments.name,
                    arguments.file);
    return with_context(written.error(), what, "no file was made");
  }
  TRY(session->close());
  if (arguments.json) TRY(print(indented(info)));
  return kDone;
}

}  // namespace firn::cmd
