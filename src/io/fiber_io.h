// SPDX-License-Identifier: Apache-2.0
// FiberIo: the world in production. One shard = one thread = fibers over one io_uring.
//
// Contract, beside Io's:
//  - One io_uring_enter per turn submits what all fibers of the turn asked for, a few more when
//    that is much (spin.h); an idle shard sleeps in it, without a timeout unless somebody sleeps.
//  - No operation on an open file or socket allocates in the steady state.
//  - Made, run and destroyed on one thread. post() alone may be called from others.
//  - O_DIRECT alignment is the caller's duty: Errc::invalid otherwise.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/prng.h"
#include "io/buffer_pool.h"
#include "io/fiber.h"
#include "io/host_event.h"
#include "io/host_file.h"
#include "io/io.h"
#include "io/mailbox.h"
#include "io/ring.h"

namespace firn {

struct FiberIoCounters {
  uint64_t turns = 0;
  uint64_t enters = 0;      // System calls into the ring.
  uint64_t operations = 0;  // Entries submitted.
  uint64_t completions = 0;
  uint64_t fibers_spawned = 0;
  uint64_t fiber_switches = 0;
  uint64_t fibers_alive = 0;
  uint64_t stacks = 0;
  uint64_t stack_high_water_bytes = 0;
  uint64_t buffer_waits = 0;
  uint64_t buffer_bytes_in_use = 0;
  uint64_t buffer_bytes_in_use_max = 0;
};

class FiberIo final : public Io {
 public:
  struct Settings {
    Ring::Settings ring;
    size_t buffer_bytes = BufferPool::kBytesByDefault;  // The registered arena; at most 1 GiB.
    std::shared_ptr<HelperThreads> helpers;             // Made when first needed if absent.
  };
  static Result<std::unique_ptr<FiberIo>> make(Settings settings);
  static Result<std::unique_ptr<FiberIo>> make() { return make(Settings()); }
  ~FiberIo() override;
  using Io::read;
  using Io::write;

  // Runs `main` as a fiber, and returns when no fiber is left. May be called again.
  void run(Task main);
  // Starts `task` as a fiber of this shard. Any thread, also while run() sleeps; the task must
  // capture nothing of another shard that could die before.
  void post(Task task) { mailbox_.post(std::move(task)); }
  // Runs `task` as a fiber of the shard `there` and waits for its end.
  void call(FiberIo& there, Task task);
  // Waits until `fd` can be read without blocking, or has failed: a signalfd, an inotify, a pidfd.
  Result<void> wait_readable(int fd);
  FiberIoCounters counters() const;  // Looks at each stack: for a scrape, not for a path.

  Time now() override;
  int64_t wall_clock_ns() override;
  std::string identity() override;
  uint64_t random() override { return prng_.next(); }
  void sleep(Duration duration) override;

  void spawn(Group& group, Task task) override { scheduler_.spawn(&group, std::move(task)); }
  void park(WaitList& list) override { scheduler_.park(list); }
  void wake(WaitList& list, size_t count) override { scheduler_.wake(list, count); }
  void yield() override { scheduler_.yield(); }
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
  BufferPool& buffers() override { return buffers_; }

  Result<size_t> receive(Socket& socket, Bytes into) override;
  Result<void> send(Socket& socket, Iovec from) override;
  Result<std::unique_ptr<Socket>> accept(Socket& listener) override;
  void shutdown(Socket& socket) override;
  Result<size_t> receive(Socket& socket, Bytes into, std::vector<Fd>& fds) override;
  Result<void> send(Socket& socket, Iovec from, std::span<const int> fds) override;
  Result<void> wait(Event& event) override;
  void signal(Event& event) override;
  void shutdown(Event& event) override;
  void watch(Poller& poller) override { pollers_.push_back(&poller); }
  void unwatch(Poller& poller) override { pollers_.remove(&poller); }

 private:
  // What waits for one completion; lies on the stack of its fiber, its address is the user_data.
  struct Operation {
    Fiber* fiber = nullptr;
    int32_t result = 0;
  };
  // When an entry goes to the kernel: with the turn's end, at once, or when a deep load says so.
  enum class Push : uint8_t { later, now, deep };
  struct Timer {
    Time due;
    uint64_t number = 0;  // Among equals, first come first served.
    Fiber* fiber = nullptr;
  };
  struct Later {
    bool operator()(const Timer& a, const Timer& b) const {
      return a.due != b.due ? a.due > b.due : a.number > b.number;
    }
  };
  static constexpr uint64_t kIgnored = 0;  // user_data that no Operation can have.
  static constexpr uint64_t kMailbox = 1;

  explicit FiberIo(const Settings& settings);
  template <class Prepare>
  int32_t submit(const char* what, Prepare&& prepare, Push push = Push::later);
  int32_t transfer(bool write, File& file, uint64_t at, Iovec piece);
  int32_t send_some(class HostSocket& end, Iovec piece);
  void use_slot(io_uring_sqe& sqe, int slot);
  template <class Call>
  int sys_elsewhere(Call&& call);
  void listen_to_mailbox();
  void read_mailbox();
  void turn();
  void fire_timers();
  void give_signals();
  bool is_long_turn() const { return scheduler_.ready_count() >= DeepLoad::kLongTurn; }
  void enter(bool wait, std::optional<Duration> timeout);
  std::optional<Duration> until_next_timer();

  FiberScheduler scheduler_;
  BufferPool buffers_;
  Mailbox mailbox_;
  uint64_t mailbox_signal_ = 0;  // Where the ring puts the eventfd's value.
  bool mailbox_listening_ = false;
  std::vector<Task> mail_tasks_;
  std::vector<Fiber*> mail_fibers_;
  std::vector<Timer> timers_;  // A heap, the next one first.
  uint64_t timer_count_ = 0;
  uint64_t turns_ = 0;
  uint32_t transfers_ = 0;  // Reads and writes of files that have not ended.
  Prng prng_;
  std::shared_ptr<HelperThreads> helpers_;
  Pollers pollers_;
  std::vector<std::shared_ptr<HostEvent::State>> signals_;  // Of this turn.
  std::unique_ptr<Ring> ring_;
};

}  // namespace firn
