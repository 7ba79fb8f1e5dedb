// SPDX-License-Identifier: Apache-2.0
// DirectoryStore: a directory of this host (or of a mount) as an object store; the embedded
// default.
//
// Contract, beside ObjectStore's:
//  Y1  The object "a/b" is the file DIR/a/b, its bytes and nothing else: `cp -r` is a copy of the
//      store. Its storage class is the extended attribute "user.firn.class"; STANDARD has none.
//  Y2  A body is written to DIR/~tmp, which no key can name, flushed, and then given its name in
//      one step; the directories above it are flushed before put() returns.
//  Y3  Who writes a temporary file holds a lock on it. One without is of a writer who died: the
//      next open() removes it.
//  Y4  Several processes may use one directory at a time, as far as its file system has atomic
//      names.
//
// Every class can be read at once: a directory freezes nothing.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "io/fd.h"
#include "io/object_store.h"

namespace firn {

class DirectoryStore final : public ObjectStore {
 public:
  struct How {
    bool create = false;  // Make the directory when it is not there; its parent must be.
    std::string name;     // What name() shall say; empty: the path.
  };
  static Result<std::unique_ptr<DirectoryStore>> open(Io& io, const std::string& path, How how);
  static Result<std::unique_ptr<DirectoryStore>> open(Io& io, const std::string& path) {
    return open(io, path, How());
  }

  const std::string& name() const override { return name_; }
  Result<void> put(Io& io, const std::string& key, Iovec body, const PutHow& how) override;
  Result<ObjectInfo> head(Io& io, const std::string& key) override;
  Result<size_t> get(Io& io, const std::string& key, uint64_t at, Bytes into) override;
  Result<std::vector<ObjectInfo>> list(Io& io, const std::string& prefix, const std::string& after,
                                       size_t count_max) override;
  Result<void> remove(Io& io, const std::string& key) override;
  Result<void> thaw(Io& io, const std::string& key, uint32_t days) override;
  Result<int64_t> wall_clock_ns(Io& io) override { return io.wall_clock_ns(); }

 private:
  DirectoryStore(std::string name, Fd root) : name_(std::move(name)), root_(std::move(root)) {}
  // What went wrong in `verb` of `key`, as a sentence.
  Error failed(const char* verb, const std::string& key, int sys) const;

  std::string name_;
  Fd root_;
};

}  // namespace firn
