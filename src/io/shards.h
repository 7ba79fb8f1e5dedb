// SPDX-License-Identifier: Apache-2.0
// Shards: several FiberIo, each on a thread of its own. What belongs to a shard is touched by its
// fibers only; shards talk by post() and call().
//
// Contract: a shard lives until stop(), then until its last fiber has ended; what is posted to it
// after that is dropped, so whoever calls across shards finishes before stop(). Signals are blocked
// on the shards' threads (a signalfd takes them, or the thread that made the shards).
#pragma once

#include <atomic>
#include <cstddef>
#include <memory>
#include <thread>
#include <vector>

#include "base/result.h"
#include "io/fiber_io.h"

namespace firn {

class Shards {
 public:
  // Settings hold for each; the helper threads are shared by all.
  static Result<std::unique_ptr<Shards>> start(size_t count, FiberIo::Settings settings);
  ~Shards();  // stop(), and waits.
  Shards(const Shards&) = delete;
  Shards& operator=(const Shards&) = delete;

  size_t count() const { return shards_.size(); }
  // For post() from anywhere and call() from another shard's fiber; the rest is the shard's own.
  FiberIo& at(size_t shard) { return *shards_[shard]->io; }
  void post(size_t shard, Task task) { at(shard).post(std::move(task)); }
  // Lets each shard end when its fibers have. Does not wait; once is enough.
  void stop();

 private:
  struct Shard {
    std::unique_ptr<FiberIo> io;
    bool stopping = false;  // The shard's own.
    WaitList stop;
    std::thread thread;
  };
  Shards() = default;
  void serve(Shard& shard);

  std::vector<std::unique_ptr<Shard>> shards_;
  bool stopped_ = false;
  // A shard's FiberIo dies on its own thread, but not before every other shard has ended: they may
  // still post to it.
  std::atomic<size_t> running_{0};
  std::atomic<bool> may_die_{false};
};

}  // namespace firn
