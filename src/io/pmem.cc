// SPDX-License-Identifier: Apache-2.0
#include "io/pmem.h"

#include <libpmem.h>

#include <algorithm>
#include <cerrno>

#include "base/check.h"

namespace firn {

Result<std::unique_ptr<PmemMapping>> PmemMapping::open(const std::string& path, uint64_t bytes,
                                                       bool create) {
  size_t mapped = 0;
  int persistent = 0;
  const int flags = create ? PMEM_FILE_CREATE | PMEM_FILE_EXCL : 0;
  void* const data =
      pmem_map_file(path.c_str(), create ? bytes : 0, flags, 0600, &mapped, &persistent);
  if (data == nullptr) return fail_errno(errno, "persistent memory '{}': cannot map it", path);
  if (mapped < bytes) {
    pmem_unmap(data, mapped);
    return fail(Errc::corrupt, "persistent memory '{}': {} bytes, expected {}", path, mapped,
                bytes);
  }
  return std::unique_ptr<PmemMapping>(
      new PmemMapping(path, static_cast<std::byte*>(data), mapped, persistent != 0));
}

PmemMapping::~PmemMapping() { pmem_unmap(data_, size_); }

void PmemMapping::copy(uint64_t at, View from) {
  CHECK(from.size() <= size_ && at <= size_ - from.size());
  pmem_memcpy(data_ + at, from.data(), from.size(), PMEM_F_MEM_NODRAIN);
  dirty_begin_ = std::min(dirty_begin_, at);
  dirty_end_ = std::max(dirty_end_, at + from.size());
}

Result<void> PmemMapping::commit() {
  if (persistent_) {
    pmem_drain();
  } else if (dirty_begin_ < dirty_end_ &&
             pmem_msync(data_ + dirty_begin_, dirty_end_ - dirty_begin_) != 0) {
    return fail_errno(errno, "persistent memory '{}': msync", path_);
  }
  dirty_begin_ = UINT64_MAX;
  dirty_end_ = 0;
  return {};
}

}  // namespace firn
