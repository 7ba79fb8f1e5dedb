// SPDX-License-Identifier: Apache-2.0
#include "cmd/archive_session.h"

#include <filesystem>

#include "io/open_store.h"
#include "wire/text.h"

namespace firn::cmd {
Result<archive::Credentials> credentials_of(Io& io, const ArchiveArguments& arguments) {
  return archive::read_credentials(io, arguments.key_file, arguments.passphrase_file);
}

Result<std::string> ArchiveSession::temporary_directory() {
  std::error_code error;
  const std::filesystem::path place = std::filesystem::temp_directory_path(error);
  std::string form = (place / "firn-archive-XXXXXX").string();
  if (!error && ::mkdtemp(form.data()) != nullptr) return form;
  return fail_errno(errno, "cannot make a temporary directory");
}

Result<std::unique_ptr<ArchiveSession>> ArchiveSession::open(FiberIo& io,
                                                             const ArchiveArguments& arguments,
                                                             Purpose purpose) {
  std::unique_ptr<ArchiveSession> session(new ArchiveSession(io));
  session->store_ = TRY(open_store(io, arguments.url));
  archive::Archive::How how;
  how.credentials = TRY(credentials_of(io, arguments));
  how.grace_ns = static_cast<int64_t>(arguments.grace_seconds) * 1'000'000'000;
  how.keyless = purpose == Purpose::verify;
  if (purpose == Purpose::change) {
    session->temporary_ = TRY(temporary_directory());
    how.log_directory = session->temporary_;
  }
  session->archive_ = TRY(archive::Archive::open(io, *session->store_, std::move(how)));
  return session;
}

Result<void> ArchiveSession::close() {
  const std::unique_ptr<archive::Archive> archive = std::move(archive_);
  return archive == nullptr ? Result<void>(ok) : archive->close(io_);
}

ArchiveSession::~ArchiveSession() {
  // A command that failed half way has told its own error.
  static_cast<void>(close().has_value());
  std::error_code error;
  if (!temporary_.empty()) std::filesystem::remove_all(temporary_, error);
}

Result<SnapshotName> snapshot_name(const std::string& text) {
  const size_t at = text.find('@');
  if (at == std::string::npos || at == 0 || at + 1 == text.size()) {
    return fail(Errc::invalid, "\"{}\" is not DISK@SNAPSHOT", wire::printable(text));
  }
  return SnapshotName{text.substr(0, at), text.substr(at + 1)};
}

}  // namespace firn::cmd
