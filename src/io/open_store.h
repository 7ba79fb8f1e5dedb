// SPDX-License-Identifier: Apache-2.0
// The one place where the address of an object store becomes a store.
#pragma once

#include <memory>
#include <string>

#include "io/object_store.h"

namespace firn {

struct OpenStoreHow {
  bool create = false;      // A directory that is not there is made. Buckets never are.
  uint64_t part_bytes = 0;  // S3: instead of what the address says, when not 0.
  uint32_t patience_s = 0;  // B6, unless the address says it; 0: the store's own.
};
// "s3://bucket/prefix?endpoint=...", "file:///srv/bucket", "/srv/bucket"; docs/reference/
// object-stores.md. Credentials are read; an S3 server is not asked anything yet.
Result<std::unique_ptr<ObjectStore>> open_store(Io& io, const std::string& url,
                                                OpenStoreHow how = {});

}  // namespace firn
