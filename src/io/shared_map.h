// SPDX-License-Identifier: Apache-2.0
// SharedMap: memory of another process, mapped here from a descriptor that it gave us.
//
// Contract:
//  H1  Touching it never kills us. When a page cannot be had (its owner made the file smaller, or
//      the host has no memory for it), the whole map becomes zeroes of our own, and broken() says
//      so from then on: what is read is of no value, what is written goes nowhere.
//  H2  Only files whose pages the kernel itself provides are mapped: a page that some program must
//      deliver could stop the shard for as long as that program likes.
//  H3  Lengths and offsets are checked against the file; nothing wraps.
//
// The guard is a handler of SIGBUS for the process, made with the first map. Faults elsewhere go to
// who handled them before.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>

#include "base/bytes.h"
#include "base/result.h"
#include "io/fd.h"

namespace firn {

class SharedMap {
 public:
  // `what` names it in errors.
  static Result<std::unique_ptr<SharedMap>> make(const Fd& fd, uint64_t offset, uint64_t length,
                                                 std::string_view what);
  ~SharedMap();
  SharedMap(const SharedMap&) = delete;
  SharedMap& operator=(const SharedMap&) = delete;

  std::byte* data() const { return data_; }
  size_t size() const { return size_; }
  Bytes bytes() const { return {data_, size_}; }
  bool broken() const;

  struct Place;  // Where the handler finds it.

 private:
  SharedMap() = default;
  std::byte* data_ = nullptr;
  size_t size_ = 0;
  void* mapped_ = nullptr;
  size_t mapped_bytes_ = 0;
  Place* place_ = nullptr;
};

// Memory to be shared: zeroes, which nobody can make smaller or larger any more when `sealed`.
Result<Fd> make_shared_memory(const char* name, uint64_t bytes, bool sealed = true);

}  // namespace firn
