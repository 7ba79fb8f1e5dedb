// SPDX-License-Identifier: Apache-2.0
// Mailbox: how other threads reach a shard. HelperThreads: who runs what a shard must not.
//
// Contract:
//  M1  Tasks posted by one thread start in the order in which it posted them.
//  M2  The shard's eventfd is written once per sleep, not once per message.
//  M3  A mailbox and the helpers outlive whatever was given to them.
// The only place, with shards.h, where threads meet: everything else is a shard's own.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

#include "base/task.h"

namespace firn {

class Fiber;

class Mailbox {
 public:
  Mailbox();
  ~Mailbox();
  Mailbox(const Mailbox&) = delete;
  Mailbox& operator=(const Mailbox&) = delete;

  // --- any thread
  void post(Task task);
  void resume(Fiber& fiber);  // A fiber of this shard, which waits for just this.

  // --- the shard
  int signal_fd() const { return signal_fd_; }
  // Takes all there is into the empty vectors given; their capacity is used again.
  void take(std::vector<Task>& tasks, std::vector<Fiber*>& fibers);

 private:
  void signal();  // With mutex_ held: whoever empties the box may destroy it afterwards.

  int signal_fd_;
  std::mutex mutex_;
  std::vector<Task> tasks_;
  std::vector<Fiber*> fibers_;
  bool signalled_ = false;
};

// A few threads for CPU-heavy work and calls that block. Shared by shards.
class HelperThreads {
 public:
  struct Job {
    Task task;
    Mailbox* home = nullptr;
    Fiber* fiber = nullptr;  // Resumed at home afterwards.
    Job* next = nullptr;
  };

  explicit HelperThreads(size_t count = 2);
  ~HelperThreads();  // Runs what was given, then ends.
  HelperThreads(const HelperThreads&) = delete;
  HelperThreads& operator=(const HelperThreads&) = delete;

  // `job` is the caller's until its fiber is resumed.
  void give(Job& job);

 private:
  void work();

  std::mutex mutex_;
  std::condition_variable something_;
  Job* first_ = nullptr;
  Job* last_ = nullptr;
  bool ending_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace firn
