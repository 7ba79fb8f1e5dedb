// SPDX-License-Identifier: Apache-2.0
#include "cmd/staged_disk.h"

#include "cmd/print.h"
#include "wire/text.h"

namespace firn::cmd {

using wire::ControlVerb;

namespace {
constexpr Duration kRetry = std::chrono::milliseconds(20);
constexpr int kRetries = 500;
}  // namespace

Result<std::string> staged_name(const std::string& name) {
  TRY(wire::check_disk_name(name));
  std::string staged = name + std::string(engine::kImportSuffix);
  if (!engine::is_import(name) && wire::check_disk_name(staged)) return staged;
  return fail(Errc::invalid, "disk name \"{}\" is too long to import under, or ends in {}", name,
              engine::kImportSuffix);
}

// Removes the staged disk. A client that just ended may hold it for a moment more.
Result<void> remove_staged(FiberIo& io, Session& session, const std::string& staged) {
  session.end_socket();
  for (int i = 0; i < kRetries; ++i) {
    const Result<std::string> removed =
        session.ask({.verb = ControlVerb::disk_delete, .name = staged});
    if (removed) return ok;
    if (removed.error().code != Errc::busy) return removed.error();
    io.sleep(kRetry);
  }
  return fail(Errc::busy, "disk {} is still in use", staged);
}

Result<void> make_room(Session& session, const std::string& name, const std::string& staged) {
  const Result<std::string> there = session.ask({.verb = ControlVerb::disk_info, .name = name});
  if (there) {
    return fail(Errc::exists, "disk {} exists already; choose another name, or delete it first",
                name);
  }
  if (there.error().code != Errc::not_found) return there.error();
  const Result<std::string> left = session.ask({.verb = ControlVerb::disk_delete, .name = staged});
  if (left || left.error().code == Errc::not_found) return ok;
  if (left.error().code != Errc::busy) return left.error();
  return fail(Errc::busy, "disk {} is being imported by somebody else now", name);
}

Error with_context(Error error, const std::string& what, const char* outcome) {
  if (error.code == Errc::cancelled)
    return fail(Errc::cancelled, "{}: interrupted; {}", what, outcome);
  const std::string why(text_of(error));
  return fail_text(error.code, 0, fmt::format("{}: {}; {}", what, why, outcome));
}

}  // namespace firn::cmd
