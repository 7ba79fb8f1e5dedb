// SPDX-License-Identifier: Apache-2.0
// A region: durable bytes with addresses and a commit operation. The journal lives in one, and does
// not know whether it is a file, persistent memory or a simulated medium.
//
//  R1  After commit() returned ok, every write() that returned before it began is durable.
//  R2  A failed commit is final (Io W4).
#pragma once

#include <memory>

#include "io/io.h"
#include "io/pmem.h"

namespace firn::store {

class Region {
 public:
  virtual ~Region() = default;
  virtual uint64_t size() const = 0;
  virtual Result<void> read(Io& io, uint64_t at, Bytes into) = 0;
  virtual Result<void> write(Io& io, uint64_t at, View from) = 0;
  virtual Result<void> commit(Io& io) = 0;

 protected:
  Region() = default;
  Region(const Region&) = delete;
  Region& operator=(const Region&) = delete;
};

// A file; commit is fdatasync. Writes must be multiples of the file's alignment.
class FileRegion final : public Region {
 public:
  FileRegion(std::unique_ptr<File> file, uint64_t size) : file_(std::move(file)), size_(size) {}
  uint64_t size() const override { return size_; }
  Result<void> read(Io& io, uint64_t at, Bytes into) override { return io.read(*file_, at, into); }
  Result<void> write(Io& io, uint64_t at, View from) override { return io.write(*file_, at, from); }
  Result<void> commit(Io& io) override { return io.flush(*file_); }

 private:
  std::unique_ptr<File> file_;
  uint64_t size_;
};

// Persistent memory; write is a non-temporal copy, commit a fence of this thread. Where the mapping
// is not persistent memory, commit is msync.
class PmemRegion final : public Region {
 public:
  explicit PmemRegion(std::unique_ptr<PmemMapping> mapping) : mapping_(std::move(mapping)) {}
  uint64_t size() const override { return mapping_->size(); }
  Result<void> read(Io&, uint64_t at, Bytes into) override {
    std::memcpy(into.data(), mapping_->data() + at, into.size());
    return ok;
  }
  Result<void> write(Io&, uint64_t at, View from) override {
    mapping_->copy(at, from);
    return ok;
  }
  Result<void> commit(Io&) override { return mapping_->commit(); }

 private:
  std::unique_ptr<PmemMapping> mapping_;
};

}  // namespace firn::store
