// SPDX-License-Identifier: Apache-2.0
#include "engine/vhost_disks.h"

#include <grp.h>
#include <pwd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <set>

#include "io/socket.h"

namespace firn::engine {
namespace {

constexpr mode_t kDirectoryMode = 0755;  // The sockets have permissions of their own.

bool is_number(const std::string& text, uint32_t& into) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), into);
  return error == std::errc() && end == text.data() + text.size();
}

}  // namespace

VhostDisks::VhostDisks(Io& io, DiskExports& exports, ServeLog& log, const VhostSettings& settings)
    : io_(io), exports_(exports), settings_(settings), server_(io, exports, log) {}

Result<std::unique_ptr<VhostDisks>> VhostDisks::begin(Io& io, DiskExports& exports, ServeLog& log,
                                                      const VhostSettings& settings) {
  std::unique_ptr<VhostDisks> made(new VhostDisks(io, exports, log, settings));
  TRY(made->find_owner());
  const std::string& directory = settings.directory;
  if (::mkdir(directory.c_str(), kDirectoryMode) != 0 && errno != EEXIST) {
    return fail_errno(errno, "cannot make directory {} for vhost-user sockets", directory);
  }
  struct stat seen {};
  if (::stat(directory.c_str(), &seen) != 0 || !S_ISDIR(seen.st_mode)) {
    return fail(Errc::invalid, "{} is not a directory for vhost-user sockets", directory);
  }
  made->refresh();
  return made;
}

Result<void> VhostDisks::find_owner() {
  const std::string& owner = settings_.owner;
  const size_t colon = owner.find(':');
  const std::string user = owner.substr(0, colon);
  const std::string group = colon == std::string::npos ? "" : owner.substr(colon + 1);
  if (!user.empty() && !is_number(user, user_)) {
    const ::passwd* const found = ::getpwnam(user.c_str());
    if (found == nullptr) return fail(Errc::invalid, "there is no user \"{}\"", user);
    user_ = found->pw_uid;
  }
  if (!group.empty() && !is_number(group, group_)) {
    const ::group* const found = ::getgrnam(group.c_str());
    if (found == nullptr) return fail(Errc::invalid, "there is no group \"{}\"", group);
    group_ = found->gr_gid;
  }
  return ok;
}

std::string VhostDisks::path_of(const std::string& disk) const {
  return fmt::format("{}/{}.sock", settings_.directory, disk);
}

Result<void> VhostDisks::add(const std::string& disk) {
  const std::string path = path_of(disk);
  std::unique_ptr<Socket> listener = TRY(listen_unix(path, settings_.mode));
  if (!settings_.owner.empty() && ::chown(path.c_str(), user_, group_) != 0) {
    const int sys = errno;
    ::unlink(path.c_str());
    return fail_errno(sys, "cannot give {} to {}", path, settings_.owner);
  }
  server_.offer(disk, std::move(listener));
  paths_[disk] = path;
  return ok;
}

void VhostDisks::refresh() {
  std::set<std::string> served;
  for (const serve::ExportEntry& entry : exports_.list(io_)) {
    if (!entry.snapshot) served.insert(entry.name);
  }
  for (auto each = paths_.begin(); each != paths_.end();) {
    if (served.contains(each->first)) {
      ++each;
      continue;
    }
    if (!each->second.empty()) {
      ::unlink(each->second.c_str());
      server_.withdraw(each->first);
    }
    each = paths_.erase(each);
  }
  for (const std::string& disk : served) {
    if (paths_.contains(disk)) continue;
    const Result<void> added = add(disk);
    if (added) continue;
    paths_[disk] = "";
    log_event(LogLevel::warning, "no vhost-user socket",
              {{"disk", disk}, {"why", std::string(text_of(added.error()))}});
  }
  server_.look_at_disks();
}

void VhostDisks::end(Duration patience) {
  for (const auto& [disk, path] : paths_) {
    if (!path.empty()) ::unlink(path.c_str());
  }
  server_.drain(patience);
}

}  // namespace firn::engine
