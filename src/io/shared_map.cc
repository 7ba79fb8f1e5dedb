// SPDX-License-Identifier: Apache-2.0
// Notes on the design
//
// The handler may run at any instruction that touches a map, on any thread. It takes no lock and
// allocates nothing: it walks places that are never freed, whose fields are atomic. A place is
// filled (end before begin) before the map is handed out, and emptied (begin first) before the
// memory is given back; who touches a map while it is destroyed breaks W2, and gets the signal.
#include "io/shared_map.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include <array>
#include <atomic>
#include <bit>
#include <cerrno>
#include <mutex>

#include "base/check.h"
#include "base/units.h"

namespace firn {

struct SharedMap::Place {
  std::atomic<uintptr_t> begin{0};
  std::atomic<uintptr_t> end{0};
  std::atomic<bool> broken{false};
  bool taken = false;  // Under the mutex.
};

namespace {

constexpr size_t kChunkPlaces = 64;
struct Chunk {
  std::array<SharedMap::Place, kChunkPlaces> places;
  std::atomic<Chunk*> next{nullptr};
};

Chunk first_chunk;
std::mutex places_mutex;
struct sigaction handled_before;

// Async-signal-safe: atomics and one system call.
bool heal(uintptr_t address) {
  for (Chunk* chunk = &first_chunk; chunk != nullptr; chunk = chunk->next.load()) {
    for (SharedMap::Place& place : chunk->places) {
      const uintptr_t begin = place.begin.load();
      const uintptr_t end = place.end.load();
      if (begin == 0 || address < begin || address >= end) continue;
      place.broken.store(true);
      const int saved = errno;
      const void* made = ::mmap(std::bit_cast<void*>(begin), end - begin, PROT_READ | PROT_WRITE,
                                MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
      errno = saved;
      return made != MAP_FAILED;
    }
  }
  return false;
}

void on_bus_error(int signal, siginfo_t* info, void* context) {
  if (heal(std::bit_cast<uintptr_t>(info->si_addr))) return;
  if ((handled_before.sa_flags & SA_SIGINFO) != 0 && handled_before.sa_sigaction != nullptr) {
    handled_before.sa_sigaction(signal, info, context);
    return;
  }
  // The instruction is tried again, and this time the signal does what it did before us.
  ::sigaction(SIGBUS, &handled_before, nullptr);
}

void install_handler() {
  static std::once_flag once;
  std::call_once(once, [] {
    struct sigaction action {};
    action.sa_sigaction = on_bus_error;
    action.sa_flags = SA_SIGINFO | SA_NODEFER;
    sigemptyset(&action.sa_mask);
    CHECK(::sigaction(SIGBUS, &action, &handled_before) == 0);
  });
}

SharedMap::Place& take_place() {
  const std::lock_guard<std::mutex> hold(places_mutex);
  for (Chunk* chunk = &first_chunk;; chunk = chunk->next.load()) {
    for (SharedMap::Place& place : chunk->places) {
      if (place.taken) continue;
      place.taken = true;
      place.broken.store(false);
      return place;
    }
    if (chunk->next.load() == nullptr) chunk->next.store(new Chunk());  // Kept: maps come back.
  }
}

void give_back(SharedMap::Place& place) {
  const std::lock_guard<std::mutex> hold(places_mutex);
  place.begin.store(0);
  place.end.store(0);
  place.taken = false;
}

bool pages_come_from_the_kernel(int fd) {
  constexpr auto kXfs = 0x58465342;
  constexpr auto kBtrfs = 0x9123683E;
  struct statfs seen {};
  if (::fstatfs(fd, &seen) != 0) return false;
  for (const long type : {long{TMPFS_MAGIC}, long{HUGETLBFS_MAGIC}, long{RAMFS_MAGIC},
                          long{EXT4_SUPER_MAGIC}, long{kXfs}, long{kBtrfs}}) {
    if (static_cast<long>(seen.f_type) == type) return true;
  }
  return false;
}

}  // namespace

Result<std::unique_ptr<SharedMap>> SharedMap::make(const Fd& fd, uint64_t offset, uint64_t length,
                                                   std::string_view what) {
  struct stat seen {};
  if (::fstat(fd.get(), &seen) != 0) return fail_errno(errno, "cannot map {}", what);
  if (!S_ISREG(seen.st_mode) || !pages_come_from_the_kernel(fd.get())) {
    return fail(Errc::invalid,
                "cannot map {}: it is not memory (memfd, tmpfs, hugetlbfs) or a file"
                " of a local file system",
                what);
  }
  const auto bytes = static_cast<uint64_t>(seen.st_size);
  if (length == 0 || !Range{offset, length}.within(bytes)) {
    return fail(Errc::invalid, "cannot map {}: {} bytes at {} are not within its {} bytes", what,
                length, offset, bytes);
  }
  // Huge pages are mapped whole; their size is the file's block size.
  const uint64_t unit = std::max<uint64_t>(kPageBytes, static_cast<uint64_t>(seen.st_blksize));
  if (!std::has_single_bit(unit) || unit > kGiB) {
    return fail(Errc::invalid, "cannot map {}: its pages have {} bytes", what, unit);
  }
  const uint64_t first = round_down(offset, unit);
  const uint64_t end = round_up(offset + length, unit);
  install_handler();
  void* const mapped = ::mmap(nullptr, end - first, PROT_READ | PROT_WRITE,
                              MAP_SHARED | MAP_NORESERVE, fd.get(), static_cast<off_t>(first));
  if (mapped == MAP_FAILED) return fail_errno(errno, "cannot map {}", what);
  (void)::madvise(mapped, end - first, MADV_DONTDUMP);  // A core is ours, not the guest's.
  std::unique_ptr<SharedMap> made(new SharedMap());
  made->mapped_ = mapped;
  made->mapped_bytes_ = end - first;
  made->data_ = static_cast<std::byte*>(mapped) + (offset - first);
  made->size_ = length;
  made->place_ = &take_place();
  made->place_->end.store(std::bit_cast<uintptr_t>(mapped) + made->mapped_bytes_);
  made->place_->begin.store(std::bit_cast<uintptr_t>(mapped));
  return std::unique_ptr<SharedMap>(std::move(made));
}

SharedMap::~SharedMap() {
  if (place_ != nullptr) give_back(*place_);
  ::munmap(mapped_, mapped_bytes_);
}

bool SharedMap::broken() const { return place_->broken.load(std::memory_order_relaxed); }

Result<Fd> make_shared_memory(const char* name, uint64_t bytes, bool sealed) {
  Fd made(::memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!made || ::ftruncate(made.get(), static_cast<off_t>(bytes)) != 0) {
    return fail_errno(errno, "cannot make {} bytes of shared memory", bytes);
  }
  if (sealed && ::fcntl(made.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
    return fail_errno(errno, "cannot seal shared memory");
  }
  return made;
}

}  // namespace firn
