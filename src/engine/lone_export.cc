// SPDX-License-Identifier: Apache-2.0
#include "engine/lone_export.h"

#include <unistd.h>

#include <filesystem>
#include <system_error>

#include "io/socket.h"

namespace firn::engine {
namespace {

constexpr Duration kPatience = std::chrono::seconds(5);

std::string fresh_path(const std::string& directory) {
  static uint64_t count = 0;  // Of the process; one shard makes them.
  return fmt::format("{}/nbd-{}-{}.sock", directory, ::getpid(), ++count);
}

bool is_ours(const std::string& name) {
  if (!name.starts_with("nbd-") || !name.ends_with(".sock")) return false;
  const std::string middle = name.substr(4, name.size() - 9);
  return middle.find_first_not_of("0123456789-") == std::string::npos;
}

}  // namespace

LoneExport::LoneExport(Io& io, disk::Disks& disks, const std::string& disk, DiskPaths* paths,
                       std::string path)
    : exports_(disks, disk, paths), server_(io, exports_, log_, {}), path_(std::move(path)) {}

Result<std::unique_ptr<LoneExport>> LoneExport::begin(Io& io, const std::string& directory,
                                                      disk::Disks& disks, const std::string& disk,
                                                      DiskPaths* paths) {
  TRY(find_any(disks, disk));
  std::string path = fresh_path(directory);
  std::unique_ptr<Socket> listener = TRY(listen_unix(path));
  std::unique_ptr<LoneExport> made(new LoneExport(io, disks, disk, paths, path));
  made->server_.listen(std::move(listener), "unix:" + path);
  return made;
}

void LoneExport::end(Io&) {
  ::unlink(path_.c_str());
  server_.drain(kPatience);
}

bool LoneExport::is_over() const { return was_used() && server_.counters().connections == 0; }

void remove_stale_sockets(const std::string& directory) {
  std::error_code error;
  std::filesystem::directory_iterator each(directory, error);
  for (; !error && each != std::filesystem::directory_iterator(); each.increment(error)) {
    if (is_ours(each->path().filename().string())) ::unlink(each->path().c_str());
  }
}

}  // namespace firn::engine
