// SPDX-License-Identifier: Apache-2.0
// Shadow: keeps what was changed and not yet committed in memory that outlives this process.
//
// A guest with a write-back cache is answered when its write is done, and map changes of first
// touches wait in memory for its flush. When the server is killed and comes back, the guest goes
// on, flushes later, and must find those writes: its own machine did not fail. So whoever is about
// to answer seals what was changed so far; a few hundred bytes are copied, nothing is waited for.
//
//  H1  What was sealed and is in no commit is found again by the next process of the same boot.
//      After a restart of the machine nothing is: then only flushes count (P1).
//  H2  Sealed is a prefix of what was changed, in whole atoms (G1): seal() is called outside them.
//  H3  Two halves: one for the commit that is under way, one for the next. A half is begun anew
//      only when the commit that it kept is durable.
//  H4  When a half is full, or something was changed that it cannot say, seal() is false until a
//      commit has it: then the caller commits before it answers.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "format/micro_journal.h"
#include "format/shadow.h"
#include "io/io.h"

namespace firn::store {

class Shadow {
 public:
  // The file at `path`, made when it is not there. Errc::unsupported where memory cannot last.
  static Result<std::unique_ptr<Shadow>> open(Io& io, const std::string& path,
                                              const format::Uuid& uuid);

  // --- opening a pool
  struct Left {
    uint64_t after = 0;              // Commit of the old epoch on which they follow.
    std::vector<std::byte> records;  // Page records, oldest first; empty: nothing was left.
  };
  // What the last process left behind commit `last` (0: none) of `epoch`, in this boot.
  Left left(uint64_t epoch, uint64_t last) const;
  // Before the pool enters `epoch`: what was left is wanted there, until its first commit is made.
  void carry(uint64_t epoch, uint64_t after);
  // Empty, for the commits of `epoch` from `id` on.
  void start(uint64_t epoch, uint64_t id);

  // --- while it is open; none of these waits
  // Words of a page that have just changed; `fresh`: the page begins as zeroes.
  void note(format::PageNo page, bool fresh, size_t first, View words);
  // Something changed that the shadow does not carry.
  void miss() { whole_ = false; }
  // H1 from here on for all that was noted; false: not without a commit (H4).
  bool seal();
  // Commit `id` has taken all that was noted; what comes is the next one's.
  void taken(uint64_t id);
  // The commit that was under way is durable.
  void durable() { before_whole_ = true; }

  uint64_t sealed_bytes() const { return sealed_bytes_; }

 private:
  Shadow(std::unique_ptr<LastingMemory> memory, const format::Uuid& uuid, std::string boot)
      : memory_(std::move(memory)), uuid_(uuid), boot_(std::move(boot)) {}
  Bytes half(uint64_t id) const;
  void begin(uint64_t id);

  std::unique_ptr<LastingMemory> memory_;
  const format::Uuid uuid_;
  const std::string boot_;
  uint64_t id_ = 0;           // The commit that will carry what is noted now.
  size_t at_ = 0;             // Where the open span begins in the half ...
  size_t end_ = 0;            // ... and where the next record goes.
  bool whole_ = true;         // All of commit id_ so far is in its half, or noted.
  bool before_whole_ = true;  // The same for the one that is under way; true when none is.
  uint64_t sealed_bytes_ = 0;
};

}  // namespace firn::store
