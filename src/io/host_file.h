// SPDX-License-Identifier: Apache-2.0
// HostFile: an open regular file or block device of this host, for BlockingIo and FiberIo; and the
// plain system calls around it that neither ring nor fibers are needed for.
//
// The free functions return an errno (0: done) instead of a Result, because they also run on helper
// threads, whose sentences cannot be read elsewhere.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/result.h"
#include "io/barrier.h"
#include "io/fd_slots.h"
#include "io/io.h"

namespace firn {

class HostFile final : public File {
 public:
  HostFile(std::string name, uint32_t alignment, int fd)
      : File(std::move(name), alignment), fd_(fd) {}
  ~HostFile() override;

  int fd() const { return fd_; }
  FdSlot slot;
  Barrier flushes;            // One fdatasync at a time: each error is reported to one caller only.
  bool flush_failed = false;  // W4: final.
  bool locked = false;

 private:
  int fd_;
};

struct OpenedFile {
  int fd = -1;
  uint32_t alignment = 1;
  int sys = 0;                // Why it failed, when fd < 0 ...
  const char* why = nullptr;  // ... or this, for what errno cannot say.
};
// Never blocks on a FIFO. O_DIRECT falls back to buffered where the file system does not take it.
OpenedFile open_host_file(const std::string& path, OpenHow how);
Result<std::unique_ptr<File>> adopt_host_file(const std::string& path, OpenedFile opened);

int host_file_size(int fd, uint64_t& bytes);
int punch_host_file(int fd, uint64_t at, uint64_t length);
int flush_host_directory(const std::string& path);
int lock_host_file(HostFile& file, bool exclusive);
std::string host_identity();
std::string host_boot();
// Briefly blocks, as opening a pool may. SharedMap guards it.
Result<std::unique_ptr<LastingMemory>> map_host_memory(const std::string& path, uint64_t bytes);
Time host_now();
// A quick look that blocks: a few entries are read.
Result<bool> host_directory_is_empty(const std::string& path);
int64_t host_wall_clock_ns();
uint64_t host_random_seed();

// The sentences that both implementations share.
Error past_the_end(const File& file, uint64_t at, uint64_t wanted, uint64_t got);
Error earlier_flush_failed(const File& file);
// Errc::invalid unless offset, lengths and addresses obey file.alignment() and the end is
// addressable.
Result<void> check_transfer(const char* verb, const File& file, uint64_t at, Iovec slices);

}  // namespace firn
