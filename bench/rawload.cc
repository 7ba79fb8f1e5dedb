// SPDX-License-Identifier: Apache-2.0
// rawload: the same workloads on a bare file or block device, O_DIRECT through io_uring: the
// ceiling.
//
//   rawload PATH [--create BYTES] [--buffered] [workload options, see workload.h]
//
// Registered file and buffers, so that nothing but the device is measured. A flush is fdatasync.
// --create makes the file anew, sparse. --buffered goes without O_DIRECT. Prints one line of JSON.
#include <fcntl.h>
#include <fmt/core.h>
#include <liburing.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "workload.h"

namespace {

using bench::Clock;
using bench::die;
using Kind = bench::Run::Step::Kind;

uint64_t bytes_of(int fd) {
  struct stat status {};
  if (::fstat(fd, &status) != 0) die("fstat failed");
  if (!S_ISBLK(status.st_mode)) return static_cast<uint64_t>(status.st_size);
  uint64_t bytes = 0;
  if (::ioctl(fd, BLKGETSIZE64, &bytes) != 0) die("BLKGETSIZE64 failed");
  return bytes;
}

class Device {
 public:
  Device(int fd, const bench::Workload& workload)
      : workload_(workload), run_(workload, bytes_of(fd)), slots_(workload.depth) {
    const auto entries = static_cast<unsigned>(workload.depth);
    if (::io_uring_queue_init(entries, &ring_, 0) != 0) die("io_uring is not available");
    if (::io_uring_register_files(&ring_, &fd, 1) != 0) die("registering the file failed");
    const size_t bytes = workload.depth * workload.block;
    if (::posix_memalign(&memory_, 4096, bytes) != 0) die("out of memory");
    bench::fill({static_cast<std::byte*>(memory_), bytes}, workload.seed);
    const iovec all{memory_, bytes};
    if (::io_uring_register_buffers(&ring_, &all, 1) != 0) die("registering the buffers failed");
    for (size_t i = 0; i < slots_.size(); ++i) free_.push_back(slots_.size() - 1 - i);
  }
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;
  ~Device() {
    ::io_uring_queue_exit(&ring_);
    std::free(memory_);
  }

  int go() {
    issue();
    while (free_.size() < slots_.size()) {
      const int done = ::io_uring_submit_and_wait(&ring_, 1);
      if (done < 0 && done != -EINTR) die(fmt::format("io_uring: {}", std::strerror(-done)));
      take_in();
      issue();
    }
    return run_.report();
  }

 private:
  struct Slot {
    bench::Run::Step step{};
    Clock::time_point issued;
  };

  void issue() {
    const Clock::time_point now = Clock::now();
    while (!free_.empty()) {
      const bench::Run::Step step = run_.next();
      if (step.kind == Kind::none) return;
      const size_t number = free_.back();
      free_.pop_back();
      slots_[number] = {step, now};
      io_uring_sqe* entry = ::io_uring_get_sqe(&ring_);
      std::byte* buffer = static_cast<std::byte*>(memory_) + number * workload_.block;
      const auto length = static_cast<unsigned>(workload_.block);
      if (step.kind == Kind::flush) {
        ::io_uring_prep_fsync(entry, 0, IORING_FSYNC_DATASYNC);
      } else if (workload_.writes()) {
        bench::restamp({buffer, workload_.block}, run_.issued());
        ::io_uring_prep_write_fixed(entry, 0, buffer, length, step.at, 0);
      } else {
        ::io_uring_prep_read_fixed(entry, 0, buffer, length, step.at, 0);
      }
      entry->flags |= IOSQE_FIXED_FILE;
      entry->user_data = number;
    }
  }

  void take_in() {
    io_uring_cqe* entry = nullptr;
    while (::io_uring_peek_cqe(&ring_, &entry) == 0) {
      const Slot& slot = slots_[entry->user_data];
      const int64_t expected =
          slot.step.kind == Kind::flush ? 0 : static_cast<int64_t>(workload_.block);
      run_.completed(slot.step, slot.issued, entry->res == expected);
      free_.push_back(entry->user_data);
      ::io_uring_cqe_seen(&ring_, entry);
    }
  }

  bench::Workload workload_;
  bench::Run run_;
  std::vector<Slot> slots_;
  std::vector<size_t> free_;
  io_uring ring_{};
  void* memory_ = nullptr;
};

}  // namespace

int main(int count, char** arguments) {
  const bench::Arguments parsed = bench::parse(count, arguments);
  std::string path;
  uint64_t create = 0;
  int flags = O_RDWR | O_DIRECT | O_CLOEXEC;
  for (size_t i = 0; i < parsed.rest.size(); ++i) {
    if (parsed.rest[i] == "--create" && i + 1 < parsed.rest.size()) {
      create = bench::size_of(parsed.rest[++i]);
    } else if (parsed.rest[i] == "--buffered") {
      flags &= ~O_DIRECT;
    } else if (path.empty()) {
      path = parsed.rest[i];
    } else {
      die(fmt::format("what is '{}'?", parsed.rest[i]));
    }
  }
  if (path.empty()) die("usage: rawload PATH [--create BYTES] [--mode M --block B --depth D ...]");
  if (create != 0) flags |= O_CREAT | O_TRUNC;
  const int fd = ::open(path.c_str(), flags, 0644);
  if (fd < 0) die(fmt::format("opening {}: {}", path, std::strerror(errno)));
  if (create != 0 && ::ftruncate(fd, static_cast<off_t>(create)) != 0) {
    die(fmt::format("sizing {}: {}", path, std::strerror(errno)));
  }
  int status = 0;
  {
    Device device(fd, parsed.workload);
    status = device.go();
  }
  ::close(fd);
  return status;
}
