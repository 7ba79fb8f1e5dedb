// SPDX-License-Identifier: Apache-2.0
// SimIo: the world as a function of a seed. The same fibers as in production, a virtual clock,
// simulated files and sockets, and faults.
//
// Contract, beside Io's:
//  - The same seed, options and program give the same run: trace_hash() is equal.
//  - Which fiber runs next, how long each operation takes and so in which order operations
//    complete, and whether sometimes() is true are drawn from the seed.
//  - run() CHECKs against a deadlock and names the fibers that wait.
//  - offload() runs inline.
//
// Belongs to one thread. Several may work on one World one after the other, not at once.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/prng.h"
#include "io/buffer_pool.h"
#include "io/fiber.h"
#include "io/io.h"
#include "sim/faults.h"
#include "sim/world.h"

namespace firn::sim {

enum class Order : uint8_t {
  drawn,      // Latencies and the order of fibers come from the seed.
  in_order,   // Operations complete in the order in which they were issued; fibers run first come
              // first.
  immediate,  // Operations complete before the call returns, without a wait: for recovery by the
              // thousands.
};

struct SimOptions {
  Order order = Order::drawn;
  Duration latency_min = std::chrono::microseconds(10);
  Duration latency_max = std::chrono::microseconds(300);
  uint32_t direct_alignment = 512;  // What File::alignment() says for direct files.
  bool sometimes = true;            // Whether sites fire at all.
  size_t pipe_bytes = 64 * 1024;    // How much a sender may be ahead of its receiver.
  size_t buffer_bytes = BufferPool::kBytesByDefault;
  std::string identity = "sim 1";
  int64_t wall_clock_ns = 1'700'000'000'000'000'000;
  uint64_t operations_max = 0;  // CHECK against a program that never ends; 0: no limit.
};

struct SocketPair {
  std::unique_ptr<Socket> a;
  std::unique_ptr<Socket> b;
};

class SimIo final : public Io {
 public:
  SimIo(World& world, uint64_t seed, SimOptions options = {});
  ~SimIo() override;
  using Io::read;
  using Io::write;

  void run(Task main);
  World& world() { return world_; }
  uint64_t trace_hash() const { return trace_; }
  uint64_t operations() const { return operations_; }  // Calls of files and directories so far.

  // Returns its number, for fault().
  size_t add_fault(Fault fault);
  const Fault& fault(size_t number) const { return faults_[number]; }
  void clear_faults() { faults_.clear(); }  // The liveness phase of a simulation.
  // How often each site of sometimes() has fired.
  const std::map<std::string, uint64_t>& sites() const { return sites_; }

  // Two connected sockets.
  SocketPair pipe_pair();
  std::unique_ptr<Socket> listen();
  Result<std::unique_ptr<Socket>> connect(Socket& listener);

  Time now() override { return now_; }
  int64_t wall_clock_ns() override { return options_.wall_clock_ns + now_.since_origin.count(); }
  std::string identity() override { return options_.identity; }
  uint64_t random() override { return program_.next(); }
  void sleep(Duration duration) override;
  bool sometimes(const char* what) override;

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
  // Kept by the world: it outlives this SimIo, as it does a process, and no crash image has it.
  Result<std::unique_ptr<LastingMemory>> map_lasting(const std::string& path,
                                                     uint64_t bytes) override;
  std::string boot() override { return "sim boot"; }
  BufferPool& buffers() override;

  Result<size_t> receive(Socket& socket, Bytes into) override;
  Result<void> send(Socket& socket, Iovec from) override;
  Result<std::unique_ptr<Socket>> accept(Socket& listener) override;
  void shutdown(Socket& socket) override;
  // Descriptors and events are the host's own: they carry no time, and their order is the seed's.
  Result<size_t> receive(Socket& socket, Bytes into, std::vector<Fd>& fds) override;
  Result<void> send(Socket& socket, Iovec from, std::span<const int> fds) override;
  Result<void> wait(firn::Event& event) override;
  void signal(firn::Event& event) override;
  void shutdown(firn::Event& event) override;
  void watch(Poller& poller) override { pollers_.push_back(&poller); }
  void unwatch(Poller& poller) override { pollers_.remove(&poller); }

 private:
  class Picker final : public OrderPicker {
   public:
    Picker(SimIo& io, uint64_t seed) : io_(io), prng_(seed) {}
    size_t pick(size_t count) override;

   private:
    SimIo& io_;
    Prng prng_;
  };
  // Something due at a virtual time; lies in the heap, points to what waits on a fiber's stack.
  struct Due {
    Time when;
    uint64_t number = 0;
    Fiber* fiber = nullptr;
    void (*effect)(void*) = nullptr;
    void* with = nullptr;
  };
  struct Later {
    bool operator()(const Due& a, const Due& b) const {
      return a.when != b.when ? a.when > b.when : a.number > b.number;
    }
  };

  // Waits an operation's time, then runs `effect` at the moment of its completion.
  template <class Effect>
  void after_latency(const char* what, Effect&& effect);
  void wait_until(Time when, const char* what, void (*effect)(void*), void* with);
  void run_next_due();
  bool look_at_pollers();
  bool pollers_found();
  // What hits this call, if anything. A copy: faults may come and go while the call waits.
  struct Strike {
    Effect effect = Effect::fail;
    int error = 0;
    int64_t shift = 0;
  };
  std::optional<Strike> strike(Verb verb, const std::string& path);
  template <class... Values>
  void trace(Values... values) {
    (trace_one(static_cast<uint64_t>(values)), ...);
  }
  void trace_one(uint64_t value) { trace_ = Prng(trace_ ^ value).next(); }
  void trace_text(const std::string& text);
  Result<void> change_content(const char* what, Verb verb, File& file, Change change);
  Result<void> change_name(const char* what, Change change);
  Result<void> flush_now(const char* what, uint64_t number, std::optional<Strike> fault,
                         const std::string& name, bool* failed_before);

  World& world_;
  SimOptions options_;
  uint64_t seed_;
  Prng nature_;   // Latencies, partial effects.
  Prng program_;  // What random() gives.
  Picker picker_;
  FiberScheduler scheduler_;
  Pollers pollers_;
  WaitList event_waiters_;  // Of all events: who signals wakes everybody, and each looks again.
  Time now_{};
  std::vector<Due> due_;
  uint64_t due_count_ = 0;
  uint64_t operations_ = 0;
  uint64_t trace_ = 0;
  std::vector<Fault> faults_;
  std::map<std::string, uint64_t> sites_;
  std::unique_ptr<BufferPool> buffers_;
};

}  // namespace firn::sim
