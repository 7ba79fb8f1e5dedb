// SPDX-License-Identifier: Apache-2.0
// BlockingIo: the world by plain system calls, without fibers. For tools, fuzzers and unit tests.
//
// Contract, beside Io's:
//  - spawn() runs the task at once, to its end; offload() too. yield() does nothing.
//  - park() is a CHECK failure: nobody could ever wake the caller. So is taking from buffers()
//    when they are exhausted.
#pragma once

#include <memory>
#include <string>

#include "base/prng.h"
#include "io/buffer_pool.h"
#include "io/host_file.h"
#include "io/io.h"

namespace firn {

class BlockingIo final : public Io {
 public:
  BlockingIo();
  ~BlockingIo() override;
  using Io::read;
  using Io::write;

  Time now() override { return host_now(); }
  int64_t wall_clock_ns() override { return host_wall_clock_ns(); }
  std::string identity() override { return host_identity(); }
  uint64_t random() override { return prng_.next(); }
  void sleep(Duration duration) override;

  void spawn(Group& group, Task task) override;
  void park(WaitList& list) override;
  void wake(WaitList& list, size_t count) override;
  void yield() override;
  void offload(Task task) override;

  Result<std::unique_ptr<File>> open(const std::string& path, OpenHow how) override;
  Result<uint64_t> size(File& file) override;
  Result<void> resize(File& file, uint64_t bytes) override;
  Result<void> read(File& file, uint64_t at, Iovec into) override;
  Result<void> write(File& file, uint64_t at, Iovec from) override;
  Result<void> flush(File& file) override;
  Result<void> punch(File& file, uint64_t at, uint64_t length) override;
  Result<void> remove(const std::string& path) override;
  Result<void> make_directory(const std::string& path) override;
  Result<bool> directory_is_empty(const std::string& path) override;
  Result<void> link_symbolically(const std::string& target, const std::string& path) override;
  Result<void> lock(File& file, bool exclusive) override;
  Result<void> flush_directory(const std::string& path) override;
  Result<std::unique_ptr<LastingMemory>> map_lasting(const std::string& path,
                                                     uint64_t bytes) override {
    return map_host_memory(path, bytes);
  }
  std::string boot() override { return host_boot(); }
  BufferPool& buffers() override;

  Result<size_t> receive(Socket& socket, Bytes into) override;
  Result<void> send(Socket& socket, Iovec from) override;
  Result<std::unique_ptr<Socket>> accept(Socket& listener) override;
  void shutdown(Socket& socket) override;
  Result<size_t> receive(Socket& socket, Bytes into, std::vector<Fd>& fds) override;
  Result<void> send(Socket& socket, Iovec from, std::span<const int> fds) override;
  Result<void> wait(Event& event) override;
  void signal(Event& event) override;
  void shutdown(Event& event) override;
  void watch(Poller& poller) override;
  void unwatch(Poller& poller) override;

 private:
  Prng prng_;
  std::unique_ptr<BufferPool> buffers_;  // Made at first use.
};

}  // namespace firn
