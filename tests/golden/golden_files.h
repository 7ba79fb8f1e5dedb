// SPDX-License-Identifier: Apache-2.0
// What the makers of golden files share: where a file goes when it is made, and whose pool it is.
#pragma once

#include <iterator>
#include <map>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "format/page.h"

namespace firn::golden {

using namespace firn::format;
using Blob = std::vector<std::byte>;
inline constexpr uint64_t kCreated = 1700000000123456789;

inline Uuid pool_uuid() {
  Uuid uuid;
  for (size_t i = 0; i < uuid.size(); ++i) uuid[i] = static_cast<std::byte>(0x10 + i);
  return uuid;
}
inline const Uuid kUuid = pool_uuid();

// By file name, and the seeds of fuzzers by path below the corpus.
inline std::map<std::string, Blob> golden_files;
inline std::map<std::string, Blob> seeds;

inline Blob blob_of(View bytes) { return Blob(bytes.begin(), bytes.end()); }
template <class T>
void append(Blob& blob, const T& object) {
  const View bytes = view_of(object);
  blob.insert(blob.end(), bytes.begin(), bytes.end());
}

// A golden file, and with it a seed for the fuzzer: `selector` first when it has several decoders.
inline void keep(const std::string& name, Blob bytes, const std::string& fuzzer,
                 int selector = -1) {
  Blob seed = bytes;
  if (selector >= 0) seed.insert(seed.begin(), static_cast<std::byte>(selector));
  while (bytes.size() > 1 && bytes.back() == std::byte{}) bytes.pop_back();
  golden_files[name + ".bin"] = std::move(bytes);
  while (seed.size() > 1 && seed.back() == std::byte{}) seed.pop_back();
  seeds[fuzzer + "/" + name] = std::move(seed);
}

// What lies in buckets; make_golden_bucket.cc.
void make_bucket_files();

}  // namespace firn::golden
