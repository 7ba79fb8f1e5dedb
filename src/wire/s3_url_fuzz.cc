// SPDX-License-Identifier: Apache-2.0
// Any bytes as the address of a store. U1, U2.
#include <algorithm>
#include <cstdint>
#include <string>

#include "base/check.h"
#include "wire/s3_url.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(data, data + size);
  const firn::Result<firn::wire::StoreUrl> url = firn::wire::parse_store_url(text);
  if (!url) return 0;
  const auto graphic = [](char c) { return c > ' ' && c < 0x7f; };
  for (const std::string& part :
       {url->bucket, url->prefix, url->region, url->endpoint, url->proxy}) {
    CHECK(std::ranges::all_of(part, graphic), "U2");
  }
  CHECK(!url->prefix.starts_with('/') && !url->prefix.ends_with('/'));
  if (url->kind == firn::wire::StoreUrl::Kind::s3) {
    const firn::Result<firn::wire::StoreUrl> again =
        firn::wire::parse_store_url(firn::wire::name_of(*url));
    CHECK(again && again->bucket == url->bucket && again->prefix == url->prefix);
  } else {
    CHECK(!url->path.empty());
  }
  return 0;
}
