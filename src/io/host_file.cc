// SPDX-License-Identifier: Apache-2.0
#include "io/host_file.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <limits>
#include <system_error>

#include "io/fd.h"
#include "io/shared_map.h"

namespace firn {
namespace {

// What direct I/O on `fd` asks of offsets, lengths and addresses; 0 when it cannot be done.
uint32_t probe_alignment(int fd) {
  alignas(4096) static thread_local std::array<std::byte, 4096> room;
  for (const uint32_t size : {512U, 4096U}) {
    ssize_t got = 0;
    do {
      got = ::pread(fd, room.data(), size, size);
    } while (got < 0 && errno == EINTR);
    if (got >= 0) return size;
  }
  return 0;
}

uint32_t direct_alignment(int fd, const struct stat& seen) {
  if (S_ISBLK(seen.st_mode)) {
    int sector = 0;
    if (::ioctl(fd, BLKSSZGET, &sector) == 0 && sector >= 512) return static_cast<uint32_t>(sector);
  }
#ifdef STATX_DIOALIGN
  struct statx more {};
  if (::statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &more) == 0 &&
      (more.stx_mask & STATX_DIOALIGN) != 0) {
    const uint32_t asked = std::max(more.stx_dio_offset_align, more.stx_dio_mem_align);
    return asked == 0 ? 0 : std::max<uint32_t>(asked, 512);
  }
#endif
  return probe_alignment(fd);
}

OpenedFile failed(int fd, int sys, const char* why = nullptr) {
  if (fd >= 0) ::close(fd);
  return {-1, 1, sys, why};
}

}  // namespace

HostFile::~HostFile() {
  slot.clear();
  // A kernel may keep the file a little longer in the ring's table; the lock must go now.
  if (locked) ::flock(fd_, LOCK_UN);
  ::close(fd_);
}

OpenedFile open_host_file(const std::string& path, OpenHow how) {
  // O_NONBLOCK: opening a FIFO must not wait for its other end; it is refused below.
  int flags = O_CLOEXEC | O_NOCTTY | O_NONBLOCK | (how.writable ? O_RDWR : O_RDONLY);
  if (how.create) flags |= O_CREAT;
  if (how.create && how.exclusive) flags |= O_EXCL;
  int fd = -1;
  do {
    fd = ::open(path.c_str(), flags | (how.direct ? O_DIRECT : 0), 0640);
  } while (fd < 0 && errno == EINTR);
  bool direct = how.direct;
  if (fd < 0 && direct && errno == EINVAL) {
    // The refusal may come after the creation: whoever asked for `exclusive` made it just now.
    fd = ::open(path.c_str(), flags & ~O_EXCL, 0640);
    direct = false;
  }
  if (fd < 0 && errno == EISDIR) return failed(fd, 0, "is a directory");
  if (fd < 0 && errno == ENXIO) return failed(fd, 0, "is neither a file nor a block device");
  if (fd < 0) return failed(fd, errno);
  struct stat seen {};
  if (::fstat(fd, &seen) != 0) return failed(fd, errno);
  if (S_ISDIR(seen.st_mode)) return failed(fd, 0, "is a directory");
  if (!S_ISREG(seen.st_mode) && !S_ISBLK(seen.st_mode)) {
    return failed(fd, 0, "is neither a file nor a block device");
  }
  const int status = ::fcntl(fd, F_GETFL);
  if (status < 0 || ::fcntl(fd, F_SETFL, status & ~O_NONBLOCK) != 0) return failed(fd, errno);
  uint32_t alignment = 1;
  if (direct) {
    alignment = direct_alignment(fd, seen);
    if (alignment == 0) {
      if (::fcntl(fd, F_SETFL, status & ~O_NONBLOCK & ~O_DIRECT) != 0) return failed(fd, errno);
      alignment = 1;
    }
  }
  return {fd, alignment, 0, nullptr};
}

Result<std::unique_ptr<File>> adopt_host_file(const std::string& path, OpenedFile opened) {
  if (opened.fd >= 0) {
    return std::unique_ptr<File>(std::make_unique<HostFile>(path, opened.alignment, opened.fd));
  }
  if (opened.why != nullptr) return fail(Errc::invalid, "cannot open {}: it {}", path, opened.why);
  return fail_errno(opened.sys, "cannot open {}", path);
}

int host_file_size(int fd, uint64_t& bytes) {
  struct stat seen {};
  if (::fstat(fd, &seen) != 0) return errno;
  bytes = static_cast<uint64_t>(seen.st_size);
  if (!S_ISBLK(seen.st_mode)) return 0;
  return ::ioctl(fd, BLKGETSIZE64, &bytes) == 0 ? 0 : errno;
}

int punch_host_file(int fd, uint64_t at, uint64_t length) {
  int done = 0;
  do {
    done = ::fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(at),
                       static_cast<off_t>(length));
  } while (done != 0 && errno == EINTR);
  return done == 0 ? 0 : errno;
}

int flush_host_directory(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return errno;
  const int sys = ::fsync(fd) == 0 ? 0 : errno;
  ::close(fd);
  return sys;
}

int lock_host_file(HostFile& file, bool exclusive) {
  // flock works on every local file system and shows up in lslocks with the holder's pid.
  if (::flock(file.fd(), (exclusive ? LOCK_EX : LOCK_SH) | LOCK_NB) == 0) {
    file.locked = true;
    return 0;
  }
  return errno == EWOULDBLOCK ? EBUSY : errno;
}

std::string host_identity() {
  std::array<char, 256> host{};
  if (::gethostname(host.data(), host.size() - 1) != 0) host[0] = '?';
  return fmt::format("{} {}", host.data(), ::getpid());
}

std::string host_boot() {
  std::array<char, 40> boot{};
  const Fd file(::open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC));
  const ssize_t got = file ? ::read(file.get(), boot.data(), boot.size() - 1) : -1;
  std::string text(boot.data(), got > 0 ? static_cast<size_t>(got) : 0);
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

namespace {

class HostMemory final : public LastingMemory {
 public:
  explicit HostMemory(std::unique_ptr<SharedMap> map) : map_(std::move(map)) {}
  Bytes bytes() const override { return map_->bytes(); }
  bool broken() const override { return map_->broken(); }

 private:
  std::unique_ptr<SharedMap> map_;
};

}  // namespace

Result<std::unique_ptr<LastingMemory>> map_host_memory(const std::string& path, uint64_t bytes) {
  const Fd file(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!file) return fail_errno(errno, "cannot open {}", path);
  // Room for all of it now: a page that the file system cannot give later breaks the map.
  if (const int sys = ::posix_fallocate(file.get(), 0, static_cast<off_t>(bytes)); sys != 0) {
    return fail_errno(sys, "cannot make {} of {} bytes", path, bytes);
  }
  auto map = TRY(SharedMap::make(file, 0, bytes, path));
  return std::unique_ptr<LastingMemory>(std::make_unique<HostMemory>(std::move(map)));
}

Result<bool> host_directory_is_empty(const std::string& path) {
  std::error_code error;
  const std::filesystem::directory_iterator first(path, error);
  if (error) return fail_errno(error.value(), "cannot look into directory {}", path);
  return first == std::filesystem::directory_iterator();
}

Time host_now() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return {std::chrono::seconds(now.tv_sec) + std::chrono::nanoseconds(now.tv_nsec)};
}

int64_t host_wall_clock_ns() {
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  return now.tv_sec * 1'000'000'000 + now.tv_nsec;
}

uint64_t host_random_seed() {
  uint64_t seed = 0;
  CHECK(::getrandom(&seed, sizeof(seed), 0) == sizeof(seed), "the kernel gives no random numbers");
  return seed;
}

Error past_the_end(const File& file, uint64_t at, uint64_t wanted, uint64_t got) {
  return fail(Errc::io, "read of {} at {}: only {} of {} bytes before its end", file.name(), at,
              got, wanted);
}

Error earlier_flush_failed(const File& file) {
  return fail(Errc::io,
              "an earlier flush of {} failed, what it covered may be lost: not flushed again",
              file.name());
}

Result<void> check_transfer(const char* verb, const File& file, uint64_t at, Iovec slices) {
  const uint64_t limit = static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
  if (at > limit || total_of(slices) > limit - at) {
    return fail(Errc::invalid, "{} of {} at {}: beyond what a file can hold", verb, file.name(),
                at);
  }
  const uint64_t mask = file.alignment() - 1;
  if (mask == 0) return ok;
  uint64_t all = at;
  for (const ::iovec& slice : slices) {
    all |= slice.iov_len | static_cast<uint64_t>(std::bit_cast<uintptr_t>(slice.iov_base));
  }
  if ((all & mask) != 0) {
    return fail(Errc::invalid, "{} of {} at {}: offset, lengths or addresses are not aligned to {}",
                verb, file.name(), at, file.alignment());
  }
  return ok;
}

}  // namespace firn
