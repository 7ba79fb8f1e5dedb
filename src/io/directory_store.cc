// SPDX-License-Identifier: Apache-2.0
#include "io/directory_store.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "io/directory_walk.h"
#include "io/slice_cursor.h"

namespace firn {
namespace {

constexpr const char* kClassAttribute = "user.firn.class";
constexpr const char* kTemporaries = "~tmp";
constexpr int kTriesMax = 100;  // Of races against those who tidy up; each loses by bad luck only.

// Everything below runs on helper threads, whose sentences cannot be read elsewhere: errnos only.

int sync_directory(int root, const std::string& path) {
  const Fd fd(
      ::openat(root, path.empty() ? "." : path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd) return errno;
  return ::fsync(fd.get()) == 0 ? 0 : errno;
}

std::string parent_of(const std::string& key) {
  const size_t slash = key.rfind('/');
  return slash == std::string::npos ? std::string() : key.substr(0, slash);
}

// The directories above `key`, from the deepest to the root: a directory that another put made, and
// has not flushed yet, is this put's concern too.
int sync_parents(int root, const std::string& key) {
  std::string path = key;
  while (!path.empty()) {
    path = parent_of(path);
    if (const int sys = sync_directory(root, path); sys != 0) return sys;
  }
  return 0;
}

int make_parents(int root, const std::string& key) {
  for (size_t slash = key.find('/'); slash != std::string::npos; slash = key.find('/', slash + 1)) {
    if (::mkdirat(root, key.substr(0, slash).c_str(), 0750) != 0 && errno != EEXIST) return errno;
  }
  return 0;
}

int write_all(int fd, Iovec body) {
  for (SliceCursor cursor(body); !cursor.done();) {
    const Iovec piece = cursor.next();
    const ssize_t put = ::pwritev(fd, piece.data(), static_cast<int>(piece.size()),
                                  static_cast<off_t>(cursor.moved()));
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return errno;
    if (put == 0) return ENOSPC;
    cursor.advance(static_cast<size_t>(put));
  }
  return 0;
}

// A file of ours in ~tmp (Y3); unlinked when it goes, unless it got its name.
class Temporary {
 public:
  Temporary(int root, uint64_t number) : root_(root) {
    path_ = fmt::format("{}/{:016x}", kTemporaries, number);
  }
  ~Temporary() {
    if (file_) ::unlinkat(root_, path_.c_str(), 0);
  }
  Temporary(const Temporary&) = delete;
  Temporary& operator=(const Temporary&) = delete;

  // EAGAIN: somebody who tidied up took it for a dead one's; try another number.
  int make() {
    if (::mkdirat(root_, kTemporaries, 0750) != 0 && errno != EEXIST) return errno;
    Fd fd(::openat(root_, path_.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0640));
    if (!fd) return errno == EEXIST || errno == ENOENT ? EAGAIN : errno;
    file_ = std::move(fd);
    if (::flock(file_.get(), LOCK_EX | LOCK_NB) != 0) return EAGAIN;
    struct stat seen {};
    if (::fstat(file_.get(), &seen) != 0) return errno;
    return seen.st_nlink == 0 ? EAGAIN : 0;
  }

  int fill(Iovec body, const std::string& storage_class) {
    if (const int sys = write_all(file_.get(), body); sys != 0) return sys;
    if (!storage_class.empty() && storage_class != kStandardClass &&
        ::fsetxattr(file_.get(), kClassAttribute, storage_class.data(), storage_class.size(), 0) !=
            0) {
      return errno;
    }
    return ::fsync(file_.get()) == 0 ? 0 : errno;
  }

  // Gives it the name of `key`.
  int name_it(const std::string& key, bool once) const {
    for (int tries = 0; tries < kTriesMax; ++tries) {
      if (const int sys = make_parents(root_, key); sys != 0 && sys != ENOENT) return sys;
      const int sys = once ? link_once(key) : rename_over(key);
      if (sys != ENOENT) return sys;  // A parent was removed just now, as empty.
    }
    return ENOENT;
  }

 private:
  int rename_over(const std::string& key) const {
    return ::renameat(root_, path_.c_str(), root_, key.c_str()) == 0 ? 0 : errno;
  }
  int link_once(const std::string& key) const {
    if (::renameat2(root_, path_.c_str(), root_, key.c_str(), RENAME_NOREPLACE) == 0) return 0;
    if (errno != EINVAL && errno != ENOSYS) return errno;
    return ::linkat(root_, path_.c_str(), root_, key.c_str(), 0) == 0 ? 0 : errno;
  }

  int root_;
  std::string path_;
  Fd file_;
};

struct PutCall {
  int root = -1;
  const std::string& key;
  Iovec body;
  const PutHow& how;
  std::array<uint64_t, 8> numbers{};

  int run() const {
    struct stat seen {};
    if (how.once && ::fstatat(root, key.c_str(), &seen, AT_SYMLINK_NOFOLLOW) == 0) return EEXIST;
    for (const uint64_t number : numbers) {
      Temporary temporary(root, number);
      int sys = temporary.make();
      if (sys == EAGAIN) continue;
      if (sys == 0) sys = temporary.fill(body, how.storage_class);
      if (sys == 0) sys = temporary.name_it(key, how.once);
      return sys == 0 ? sync_parents(root, key) : sys;
    }
    return EAGAIN;
  }
};

// An open object: never a link, a pipe, a directory.
int open_object(int root, const std::string& key, Fd& fd, struct stat& seen) {
  fd = Fd(::openat(root, key.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK));
  if (!fd) return errno == ENOTDIR || errno == ELOOP ? ENOENT : errno;
  if (::fstat(fd.get(), &seen) != 0) return errno;
  return S_ISREG(seen.st_mode) ? 0 : ENOENT;
}

std::string class_of(int fd) {
  std::array<char, 32> room{};
  const ssize_t got = ::fgetxattr(fd, kClassAttribute, room.data(), room.size());
  const std::string name(room.data(), got > 0 ? static_cast<size_t>(got) : 0);
  return is_storage_class(name) ? name : std::string(kStandardClass);
}

int look_at(int root, const std::string& key, ObjectInfo& info) {
  Fd fd;
  struct stat seen {};
  if (const int sys = open_object(root, key, fd, seen); sys != 0) return sys;
  info.key = key;
  info.bytes = static_cast<uint64_t>(seen.st_size);
  info.modified_ns = seen.st_mtim.tv_sec * 1'000'000'000 + seen.st_mtim.tv_nsec;
  info.storage_class = class_of(fd.get());
  return 0;
}

int read_object(int root, const std::string& key, uint64_t at, Bytes into, size_t& got_all) {
  Fd fd;
  struct stat seen {};
  if (const int sys = open_object(root, key, fd, seen); sys != 0) return sys;
  if (at >= static_cast<uint64_t>(seen.st_size)) return 0;
  while (got_all < into.size()) {
    const ssize_t got = ::pread(fd.get(), into.data() + got_all, into.size() - got_all,
                                static_cast<off_t>(at + got_all));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return errno;
    if (got == 0) return 0;
    got_all += static_cast<size_t>(got);
  }
  return 0;
}

int remove_object(int root, const std::string& key) {
  struct stat seen {};
  if (::fstatat(root, key.c_str(), &seen, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(seen.st_mode)) {
    return 0;
  }
  if (::unlinkat(root, key.c_str(), 0) != 0) {
    return errno == ENOENT || errno == ENOTDIR ? 0 : errno;
  }
  std::string path = parent_of(key);
  const int sys = sync_directory(root, path);
  if (sys != 0 && sys != ENOENT) return sys;
  // Folders are none of the store's business: empty ones go.
  for (; !path.empty(); path = parent_of(path)) {
    if (::unlinkat(root, path.c_str(), AT_REMOVEDIR) != 0) break;
  }
  return 0;
}

void remove_leftovers(int root) {
  for (const DirectoryEntry& entry : entries_of(root, kTemporaries)) {
    const std::string path = fmt::format("{}/{}", kTemporaries, entry.name);
    const Fd fd(::openat(root, path.c_str(), O_RDWR | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK));
    if (fd && ::flock(fd.get(), LOCK_EX | LOCK_NB) == 0) ::unlinkat(root, path.c_str(), 0);
  }
}

}  // namespace

Result<std::unique_ptr<DirectoryStore>> DirectoryStore::open(Io& io, const std::string& path,
                                                             How how) {
  Fd root;
  int sys = 0;
  io.offload([&] {
    const auto open_it = [&] {
      root = Fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
      sys = root ? 0 : errno;
    };
    open_it();
    if (sys == ENOENT && how.create && ::mkdir(path.c_str(), 0750) == 0) open_it();
    if (sys == 0) remove_leftovers(root.get());
  });
  if (sys != 0) return fail_errno(sys, "cannot open the object store in directory {}", path);
  return std::unique_ptr<DirectoryStore>(
      new DirectoryStore(how.name.empty() ? path : how.name, std::move(root)));
}

Error DirectoryStore::failed(const char* verb, const std::string& key, int sys) const {
  switch (sys) {
    case ENOENT:
      return fail(Errc::not_found, "no object {} in {}", key, name_);
    case EEXIST:
      return fail(Errc::exists, "object {} in {} is there already", key, name_);
    case EACCES:
    case EPERM:
    case EROFS:
      return fail(Errc::invalid, "{} of object {} in {} is not permitted ({})", verb, key, name_,
                  std::strerror(sys));
    case EISDIR:
    case ENOTDIR:
    case ENOTEMPTY:
      return fail(Errc::invalid, "{} of object {} in {}: one object cannot be another one's folder",
                  verb, key, name_);
    default:
      return fail_errno(sys, "{} of object {} in {}", verb, key, name_);
  }
}

Result<void> DirectoryStore::put(Io& io, const std::string& key, Iovec body, const PutHow& how) {
  CHECK(is_object_key(key), "'{}' is no key of an object", key);
  CHECK(how.storage_class.empty() || is_storage_class(how.storage_class), "{}", how.storage_class);
  ++counters_.puts;
  PutCall call{root_.get(), key, body, how};
  for (uint64_t& number : call.numbers) number = io.random();
  int sys = 0;
  io.offload([&] { sys = call.run(); });
  if (sys == EOPNOTSUPP) {
    return fail(Errc::unsupported, "{}: its file system keeps no extended attributes, and so no {}",
                name_, how.storage_class);
  }
  if (sys != 0) return failed("put", key, sys);
  counters_.bytes_put += total_of(body);
  return ok;
}

Result<ObjectInfo> DirectoryStore::head(Io& io, const std::string& key) {
  CHECK(is_object_key(key), "'{}' is no key of an object", key);
  ++counters_.heads;
  ObjectInfo info;
  int sys = 0;
  io.offload([&] { sys = look_at(root_.get(), key, info); });
  if (sys != 0) return failed("head", key, sys);
  return info;
}

Result<size_t> DirectoryStore::get(Io& io, const std::string& key, uint64_t at, Bytes into) {
  CHECK(is_object_key(key), "'{}' is no key of an object", key);
  ++counters_.gets;
  size_t got = 0;
  int sys = 0;
  io.offload([&] { sys = read_object(root_.get(), key, at, into, got); });
  if (sys != 0) return failed("get", key, sys);
  counters_.bytes_got += got;
  return got;
}

Result<std::vector<ObjectInfo>> DirectoryStore::list(Io& io, const std::string& prefix,
                                                     const std::string& after, size_t count_max) {
  CHECK(count_max > 0);
  ++counters_.lists;
  std::vector<ObjectInfo> found;
  int sys = 0;
  io.offload([&] {
    sys = walk_directory(root_.get(), prefix, after, [&](const std::string& key) {
      ObjectInfo info;
      const int looked = look_at(root_.get(), key, info);
      if (looked == 0) found.push_back(std::move(info));
      // What went away meanwhile is not listed.
      return looked != 0 && looked != ENOENT ? looked : (found.size() == count_max ? -1 : 0);
    });
  });
  if (sys > 0) return failed("list", prefix, sys);
  return found;
}

Result<void> DirectoryStore::remove(Io& io, const std::string& key) {
  CHECK(is_object_key(key), "'{}' is no key of an object", key);
  ++counters_.removes;
  int sys = 0;
  io.offload([&] { sys = remove_object(root_.get(), key); });
  if (sys != 0) return failed("remove", key, sys);
  return ok;
}

Result<void> DirectoryStore::thaw(Io& io, const std::string& key, uint32_t) {
  ++counters_.thaws;
  TRY(head(io, key));
  return ok;
}

}  // namespace firn
