// SPDX-License-Identifier: Apache-2.0
#include "io/directory_walk.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <memory>

#include "io/object_store.h"

namespace firn {
namespace {

struct CloseDirectory {
  void operator()(DIR* directory) const { ::closedir(directory); }
};

bool is_directory(DIR* directory, const dirent& entry, bool& regular) {
  unsigned char type = entry.d_type;
  if (type == DT_UNKNOWN) {
    struct stat seen {};
    const int fd = ::dirfd(directory);
    if (::fstatat(fd, entry.d_name, &seen, AT_SYMLINK_NOFOLLOW) != 0) return false;
    type = S_ISDIR(seen.st_mode) ? DT_DIR : (S_ISREG(seen.st_mode) ? DT_REG : DT_UNKNOWN);
  }
  regular = type == DT_REG;
  return type == DT_DIR;
}

int read_entries(int root, const std::string& path, std::vector<DirectoryEntry>& into) {
  const int fd = ::openat(root, path.empty() ? "." : path.c_str(),
                          O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0) return errno;
  const std::unique_ptr<DIR, CloseDirectory> directory(::fdopendir(fd));
  if (directory == nullptr) {
    const int sys = errno;
    ::close(fd);
    return sys;
  }
  for (;;) {
    errno = 0;
    const dirent* entry = ::readdir(directory.get());
    if (entry == nullptr) return errno;
    bool regular = false;
    const bool is_folder = is_directory(directory.get(), *entry, regular);
    if (is_folder || regular) into.push_back({entry->d_name, is_folder});
  }
}

class Walk {
 public:
  Walk(int root, const std::string& prefix, const std::string& after,
       const std::function<int(const std::string&)>& each)
      : root_(root), prefix_(prefix), after_(after), each_(each) {}

  // `path` is empty or ends with '/'.
  int in(const std::string& path) {
    std::vector<DirectoryEntry> entries;
    const int sys = read_entries(root_, path, entries);
    if (sys != 0) return path.empty() || sys != ENOENT ? sys : 0;
    for (DirectoryEntry& entry : entries) {
      if (entry.directory) entry.name += '/';
    }
    std::ranges::sort(entries, {}, &DirectoryEntry::name);
    for (const DirectoryEntry& entry : entries) {
      const std::string whole = path + entry.name;
      if (const int said = entry.directory ? folder(whole) : file(whole); said != 0) return said;
    }
    return 0;
  }

 private:
  int folder(const std::string& path) {
    if (!is_object_key(std::string_view(path).substr(0, path.size() - 1))) return 0;
    if (!path.starts_with(prefix_) && !prefix_.starts_with(path)) return 0;
    const bool all_before = path < after_ && !after_.starts_with(path);
    return all_before ? 0 : in(path);
  }
  int file(const std::string& path) {
    if (!path.starts_with(prefix_) || path <= after_ || !is_object_key(path)) return 0;
    return each_(path);
  }

  int root_;
  const std::string& prefix_;
  const std::string& after_;
  const std::function<int(const std::string&)>& each_;
};

}  // namespace

std::vector<DirectoryEntry> entries_of(int root, const std::string& path) {
  std::vector<DirectoryEntry> entries;
  if (read_entries(root, path, entries) != 0) entries.clear();
  return entries;
}

int walk_directory(int root, const std::string& prefix, const std::string& after,
                   const std::function<int(const std::string& path)>& each) {
  return Walk(root, prefix, after, each).in("");
}

}  // namespace firn
