// SPDX-License-Identifier: Apache-2.0
#include "cmd/archive_session.h"

#include <filesystem>

#include "io/open_store.h"
#include "wire/text.h"

namespace firn::cmd {
namespace {

constexpr uint64_t kKeyFileBytesMin = 32;
constexpr uint64_t kKeyFileBytesMax = 1 * kMiB;

Result<std::string> read_small(Io& io, const std::string& path) {
  const std::unique_ptr<File> file = TRY(io.open(path, {.writable = false}));
  const uint64_t bytes = TRY(io.size(*file));
  if (bytes > kKeyFileBytesMax) {
    return fail(Errc::invalid, "key file {}: {} bytes are too many", path, bytes);
  }
  std::string text(bytes, '\0');
  TRY(io.read(*file, 0, std::as_writable_bytes(std::span(text))));
  return text;
}

}  // namespace

Result<archive::Credentials> credentials_of(Io& io, const ArchiveArguments& arguments) {
  archive::Credentials credentials;
  if (!arguments.key_file.empty()) {
    credentials.source = format::KeySource::file;
    credentials.bytes = TRY(read_small(io, arguments.key_file));
    if (credentials.bytes.size() < kKeyFileBytesMin) {
      return fail(Errc::invalid, "key file {}: at least {} bytes, better random ones",
                  arguments.key_file, kKeyFileBytesMin);
    }
  } else if (!arguments.passphrase_file.empty()) {
    credentials.source = format::KeySource::passphrase;
    const std::string text = TRY(read_small(io, arguments.passphrase_file));
    credentials.bytes = text.substr(0, text.find('\n'));
    if (credentials.bytes.empty()) {
      return fail(Errc::invalid, "passphrase file {}: its first line is empty",
                  arguments.passphrase_file);
    }
  }
  return credentials;
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
