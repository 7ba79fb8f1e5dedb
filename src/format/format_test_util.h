// SPDX-License-Identifier: Apache-2.0
// What the tests of the formats share: random bytes, single-bit flips, golden files. Tests only.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/prng.h"
#include "base/result.h"
#include "base/units.h"
#include "format/page.h"

namespace firn::format {

using Blob = std::vector<std::byte>;

inline void fill(Prng& prng, Bytes bytes) {
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(prng.next());
}
inline Uuid random_uuid(Prng& prng) {
  Uuid uuid;
  fill(prng, uuid);
  return uuid;
}
inline Blob blob_of(View bytes) { return Blob(bytes.begin(), bytes.end()); }
inline bool same(View a, View b) { return std::ranges::equal(a, b); }
inline void flip(Bytes bytes, size_t bit) { bytes[bit / 8] ^= std::byte{1} << (bit % 8); }
template <class T>
void put(Bytes bytes, size_t at, const T& value) {
  std::ranges::copy(view_of(value), bytes.begin() + static_cast<ptrdiff_t>(at));
}
template <class T>
void expect_error(const Result<T>& result, Errc code, std::string_view part) {
  ASSERT_FALSE(result) << part;
  EXPECT_EQ(name_of(result.error().code), name_of(code)) << text_of(result.error());
  EXPECT_NE(text_of(result.error()).find(part), std::string_view::npos) << text_of(result.error());
}

// A golden file; a page's trailing zeroes are cut in it, so it is padded to `bytes`.
inline Blob golden(const std::string& name, size_t bytes) {
  std::ifstream file(std::string(FIRN_GOLDEN) + "/" + name, std::ios::binary);
  EXPECT_TRUE(file) << "no golden file " << name;
  const std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  Blob blob = blob_of(std::as_bytes(std::span(text)));
  EXPECT_FALSE(blob.empty()) << name;
  EXPECT_LE(blob.size(), bytes) << name;
  blob.resize(bytes);
  return blob;
}

}  // namespace firn::format
