// SPDX-License-Identifier: Apache-2.0
// A file mapped through libpmem: stores, and a commit that makes this thread's stores durable.
//
// Scope: on persistent memory commit() orders the stores of the calling thread only (clwb; sfence),
// so a mapping is written by one shard. On a file system without DAX commit() is msync and global.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/bytes.h"
#include "base/result.h"

namespace firn {

class PmemMapping {
 public:
  // Maps `bytes` of the file at `path`; with `create` makes it (Errc::exists when it is there).
  static Result<std::unique_ptr<PmemMapping>> open(const std::string& path, uint64_t bytes,
                                                   bool create);
  ~PmemMapping();
  PmemMapping(const PmemMapping&) = delete;
  PmemMapping& operator=(const PmemMapping&) = delete;

  uint64_t size() const { return size_; }
  const std::byte* data() const { return data_; }
  bool is_persistent_memory() const { return persistent_; }
  void copy(uint64_t at, View from);
  Result<void> commit();

 private:
  PmemMapping(std::string path, std::byte* data, uint64_t size, bool persistent)
      : path_(std::move(path)), data_(data), size_(size), persistent_(persistent) {}
  std::string path_;
  std::byte* data_;
  uint64_t size_;
  bool persistent_;
  uint64_t dirty_begin_ = UINT64_MAX;  // What msync must cover when this is not persistent memory.
  uint64_t dirty_end_ = 0;
};

}  // namespace firn
