// SPDX-License-Identifier: Apache-2.0
// The world, as a parameter. A function that takes an Io& may wait; a function that does not,
// cannot.
//
// Three implementations: FiberIo (fibers over io_uring, production), SimIo (the same fibers, a
// seeded world; sim/), BlockingIo (plain system calls, no fibers: tools, fuzzers, unit tests).
//
// Contract, for every implementation:
//  W1  Calls happen on the shard's own thread. Between two calls that may wait nothing else runs:
//      what a fiber asserted stays true until its next io. call.
//  W2  Nothing is destroyed while waiting: buffers, files and sockets outlive the call that uses
//      them.
//  W3  Operations in flight together are unordered. Durability comes only from flush().
//  W4  A failed flush is final for the file: the implementation never retries it, and never reports
//      a later flush as good for writes that came before (the caller fences; STYLE B4).
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/check.h"
#include "base/list.h"
#include "base/result.h"
#include "base/task.h"
#include "base/time.h"
#include "io/fd.h"

namespace firn {

// An open file or block device. Which world it belongs to is known to the Io that opened it, only.
class File {
 public:
  virtual ~File() = default;
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  // Offsets, lengths and addresses of reads and writes must be multiples of this: 1 when the file
  // is buffered, 512 or 4096 when it is open for direct I/O.
  uint32_t alignment() const { return alignment_; }
  const std::string& name() const { return name_; }

 protected:
  File(std::string name, uint32_t alignment) : name_(std::move(name)), alignment_(alignment) {}
  std::string name_;
  uint32_t alignment_;
};

// A connected byte stream, or a listening one.
class Socket {
 public:
  virtual ~Socket() = default;
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;
  // Who is at the other end, for logs: "unix", "127.0.0.1:53211".
  virtual std::string peer() const = 0;

 protected:
  Socket() = default;
};

// A count in the kernel that other processes add to (io/host_event.h makes them).
class Event {
 public:
  virtual ~Event() = default;
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;

 protected:
  Event() = default;
};

// Memory that another process writes without telling: a ring. While it is watched, the shard looks
// at it before each sleep, and in place of a short one.
class Poller {
 public:
  virtual ~Poller() = default;
  // Whether something came; if so a fiber was woken for it. Cheap, and never waits.
  virtual bool look() = 0;
  // The shard is about to sleep: from now on the other side must signal an Event. Looks once more
  // after it has said so: true when something came before. May unwatch() itself. A sleep that is
  // short (Ring::gather) is not announced: what comes meanwhile is seen after it.
  virtual bool arm() = 0;
  Links<Poller> links;  // The Io's.

 protected:
  Poller() = default;
  Poller(const Poller&) = delete;
  Poller& operator=(const Poller&) = delete;
};
using Pollers = List<Poller, &Poller::links>;

struct OpenHow {
  bool writable = true;
  bool create = false;     // Make it when it is not there.
  bool exclusive = false;  // With create: fail with Errc::exists when it is there.
  bool direct = false;     // O_DIRECT where the file system allows it; alignment() tells.
};

// Fibers that wait for something this shard will do. FIFO. Must be empty when destroyed.
class WaitList {
 public:
  WaitList() = default;
  WaitList(const WaitList&) = delete;
  WaitList& operator=(const WaitList&) = delete;
  ~WaitList() { CHECK(first == nullptr, "a fiber still waits here"); }
  bool empty() const { return first == nullptr; }

  struct Node {
    Node* next = nullptr;
  };
  Node* first = nullptr;  // Owned by the Io implementation.
  Node* last = nullptr;
};

// Memory that outlives this process, though not this boot of the machine: what was stored is there
// for whoever maps it next. Stores are seen in the order in which they were made.
class LastingMemory {
 public:
  virtual ~LastingMemory() = default;
  LastingMemory(const LastingMemory&) = delete;
  LastingMemory& operator=(const LastingMemory&) = delete;
  virtual Bytes bytes() const = 0;
  // The host could not provide a page of it: what is stored goes nowhere.
  virtual bool broken() const = 0;

 protected:
  LastingMemory() = default;
};

class BufferPool;  // io/buffer_pool.h
class Group;

class Io {
 public:
  virtual ~Io() = default;

  // --- time and chance
  virtual Time now() = 0;               // Monotonic.
  virtual int64_t wall_clock_ns() = 0;  // Since 1970, UTC; for people, never for ordering.
  virtual std::string identity() = 0;   // "HOST PID" of this process, for lock files.
  virtual uint64_t random() = 0;        // Seeded in simulation.
  virtual void sleep(Duration) = 0;
  // True now and then, in simulation only: a place where rare behaviour may be chosen.
  virtual bool sometimes(const char* /*what*/) { return false; }

  // --- fibers Starts `task` as a child of `group`; it first runs when the caller waits. BlockingIo
  // runs it at once.
  virtual void spawn(Group& group, Task task) = 0;
  // Waits until somebody wakes this list. BlockingIo: CHECK failure, nobody could.
  virtual void park(WaitList& list) = 0;
  // Makes the first `count` waiters runnable, in order of arrival. Does not wait.
  virtual void wake(WaitList& list, size_t count = SIZE_MAX) = 0;
  // Waits until every fiber that is runnable now has run: the end of the turn, where batches close.
  virtual void yield() = 0;
  // Runs `task` on a helper thread and waits for it: CPU-heavy work, or a call that blocks. Runs
  // inline in simulation. The task must not touch this Io.
  virtual void offload(Task task) = 0;

  // --- files. Paths are the host's; SimIo keeps a name space of its own.
  virtual Result<std::unique_ptr<File>> open(const std::string& path, OpenHow how) = 0;
  virtual Result<uint64_t> size(File&) = 0;                // Bytes; block devices too.
  virtual Result<void> resize(File&, uint64_t bytes) = 0;  // Sparse growth. Durable by flush.
  // Reads exactly total_of(into) bytes; past the end is Errc::io.
  virtual Result<void> read(File&, uint64_t at, Iovec into) = 0;
  virtual Result<void> write(File&, uint64_t at, Iovec from) = 0;
  // Everything written to this file by calls that completed before this one began is durable.
  virtual Result<void> flush(File&) = 0;
  // Returns the space of a run to the host file system; it reads as zero afterwards.
  virtual Result<void> punch(File&, uint64_t at, uint64_t length) = 0;
  virtual Result<void> remove(const std::string& path) = 0;
  virtual Result<void> make_directory(const std::string& path) = 0;
  virtual Result<bool> directory_is_empty(const std::string& path) = 0;
  virtual Result<void> link_symbolically(const std::string& target, const std::string& path) = 0;
  // An advisory lock on the whole file, held until the File is closed. Errc::busy at once when
  // somebody else holds one that excludes it.
  virtual Result<void> lock(File&, bool exclusive) = 0;
  // Makes creations, renames and removals in this directory durable.
  virtual Result<void> flush_directory(const std::string& path) = 0;

  // `bytes` of the file at `path`, which is made, or made longer, when need be; what is new reads
  // as zero. One at a time maps it. Errc::unsupported where files cannot be that.
  virtual Result<std::unique_ptr<LastingMemory>> map_lasting(const std::string& path,
                                                             uint64_t bytes) = 0;
  virtual std::string boot() = 0;  // Names this boot of the machine; at most 40 bytes.

  // The shard's aligned buffers: reads and writes from and into them are the cheapest.
  virtual BufferPool& buffers() = 0;

  // --- sockets
  // Up to into.size() bytes; 0 at the orderly end.
  virtual Result<size_t> receive(Socket&, Bytes into) = 0;
  // All of it.
  virtual Result<void> send(Socket&, Iovec from) = 0;
  virtual Result<std::unique_ptr<Socket>> accept(Socket& listener) = 0;
  // Ends both directions now; calls waiting on the socket return 0 or an error. Does not wait.
  virtual void shutdown(Socket&) = 0;
  // The same, with descriptors that travel beside the bytes; what came is appended to `fds`. The
  // bytes of one receive belong to one send when that had descriptors. Errc::invalid when more than
  // kDescriptorsMax came at once.
  static constexpr size_t kDescriptorsMax = 16;
  virtual Result<size_t> receive(Socket&, Bytes into, std::vector<Fd>& fds) = 0;
  virtual Result<void> send(Socket&, Iovec from, std::span<const int> fds) = 0;

  // --- signals of other processes, and rings shared with them
  // Until it was signalled since the last wait; one fiber at a time. Errc::cancelled once it is
  // shut down.
  virtual Result<void> wait(Event&) = 0;
  // Does not wait. Several in one turn are one; given at the end of the turn.
  virtual void signal(Event&) = 0;
  // Ends the wait, and those to come. Does not wait.
  virtual void shutdown(Event&) = 0;
  // BlockingIo: CHECK failure, as with park().
  virtual void watch(Poller&) = 0;
  virtual void unwatch(Poller&) = 0;

  // --- conveniences
  Result<void> read(File& file, uint64_t at, Bytes into) {
    const ::iovec slice = slice_of(into);
    return read(file, at, Iovec(&slice, 1));
  }
  Result<void> write(File& file, uint64_t at, View from) {
    const ::iovec slice = slice_of(from);
    return write(file, at, Iovec(&slice, 1));
  }
};

// Structured concurrency: a group outlives its children. Declare it before what they capture.
class Group {
 public:
  explicit Group(Io& io) : io_(io) {}
  Group(const Group&) = delete;
  Group& operator=(const Group&) = delete;
  ~Group() { wait(); }
  void wait() {
    while (running_ > 0) io_.park(waiters_);
  }
  size_t running() const { return running_; }

  // For Io implementations.
  void child_started() { ++running_; }
  void child_ended() {
    CHECK(running_ > 0);
    if (--running_ == 0) io_.wake(waiters_);
  }

 private:
  Io& io_;
  size_t running_ = 0;
  WaitList waiters_;
};

// In its scope waiting is a programmer's error: every Io call that may wait CHECKs that no NoWait
// is alive on its thread. Marks the sections that must be atomic among the fibers of a shard.
class NoWait {
 public:
  NoWait() { ++depth; }
  ~NoWait() { --depth; }
  NoWait(const NoWait&) = delete;
  NoWait& operator=(const NoWait&) = delete;
  static void assert_may_wait() { CHECK(depth == 0, "waiting inside a NoWait section"); }

 private:
  inline static thread_local int depth = 0;
};

}  // namespace firn
