// SPDX-License-Identifier: Apache-2.0
#include "io/open_store.h"

#include "io/directory_store.h"
#include "io/s3_store.h"
#include "wire/s3_url.h"

namespace firn {

Result<std::unique_ptr<ObjectStore>> open_store(Io& io, const std::string& text, OpenStoreHow how) {
  wire::StoreUrl url = TRY(wire::parse_store_url(text));
  if (url.kind == wire::StoreUrl::Kind::s3) {
    if (how.part_bytes != 0) url.part_bytes = how.part_bytes;
    if (url.patience_s == 0) url.patience_s = how.patience_s;
    return std::unique_ptr<ObjectStore>(TRY(S3Store::open(io, url)));
  }
  return std::unique_ptr<ObjectStore>(
      TRY(DirectoryStore::open(io, url.path, {.create = how.create, .name = wire::name_of(url)})));
}

}  // namespace firn
