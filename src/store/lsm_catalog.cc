// SPDX-License-Identifier: Apache-2.0
#include "store/lsm_catalog.h"

#include <fmt/core.h>

#include <algorithm>
#include <charconv>

#include "base/check.h"

namespace firn::store {

using format::LsmCatalog;
using format::LsmPointer;

namespace {

constexpr size_t kFirstRead = 256 * kKiB;  // Most catalogs come with one get.
constexpr size_t kListStep = 1000;
constexpr int kTriesMax = 64;  // Against a chain that runs away while it is looked for.

void fill_random(Io& io, std::array<std::byte, 16>& bytes) {
  const le64 a(io.random()), b(io.random());
  std::ranges::copy(view_of(a), bytes.begin());
  std::ranges::copy(view_of(b), bytes.begin() + 8);
}

}  // namespace

std::string LsmCatalogs::key_of(uint64_t version) const {
  return fmt::format("{}catalog/{:016x}", prefix_, version);
}
std::string LsmCatalogs::epoch_key(uint64_t epoch) const {
  return fmt::format("{}epoch/{:016x}", prefix_, epoch);
}

std::optional<uint64_t> LsmCatalogs::version_of(const std::string& key) const {
  const size_t at = prefix_.size() + 8;
  if (key.size() != at + 16) return std::nullopt;
  uint64_t version = 0;
  std::from_chars(key.data() + at, key.data() + key.size(), version, 16);
  if (key_of(version) != key) return std::nullopt;
  return version;
}

Result<std::vector<std::byte>> LsmCatalogs::read_whole(Io& io, const std::string& key,
                                                       uint64_t bytes_max) {
  std::vector<std::byte> bytes;
  uint64_t step = std::min<uint64_t>(kFirstRead, bytes_max + 1);
  while (true) {
    const uint64_t at = bytes.size();
    bytes.resize(at + step);
    const size_t got = TRY(store_.get(io, key, at, Bytes(bytes).subspan(at)));
    bytes.resize(at + got);
    if (got < step) return bytes;
    if (bytes.size() > bytes_max) return fail(Errc::corrupt, "{}: is too large", key);
    step = std::min<uint64_t>(4 * kMiB, bytes_max + 1 - bytes.size());
  }
}

Result<LsmCatalog> LsmCatalogs::load(Io& io, uint64_t version) {
  const auto bytes = TRY(read_whole(io, key_of(version), format::kLsmCatalogBytesMax));
  return format::decode_lsm_catalog(bytes, version);
}

// --- finding the newest

Result<std::optional<LsmPointer>> LsmCatalogs::read_hint(Io& io) {
  const auto bytes = read_whole(io, prefix_ + "newest", sizeof(LsmPointer));
  if (!bytes && bytes.error().code != Errc::not_found && bytes.error().code != Errc::corrupt) {
    return bytes.error();
  }
  if (!bytes) return std::optional<LsmPointer>();
  const auto pointer = format::decode_lsm_pointer(*bytes, format::kLsmNewestMagic);
  if (!pointer && pointer.error().code == Errc::too_new) return pointer.error();
  if (!pointer) return std::optional<LsmPointer>();  // It is a hint, and a bad one is none.
  return std::optional<LsmPointer>(*pointer);
}

Result<bool> LsmCatalogs::is_there(Io& io, uint64_t version) {
  const auto head = store_.head(io, key_of(version));
  if (head) return true;
  if (head.error().code == Errc::not_found) return false;
  return head.error();
}

// The last of the chain, given one that is in it.
Result<uint64_t> LsmCatalogs::gallop(Io& io, uint64_t from) {
  uint64_t low = from;
  uint64_t step = 1;
  while (TRY(is_there(io, low + step))) {
    low += step;
    step *= 2;
  }
  for (uint64_t high = low + step; high - low > 1;) {  // `high` is not there.
    const uint64_t middle = low + (high - low) / 2;
    (TRY(is_there(io, middle)) ? low : high) = middle;
  }
  return low;
}

Result<uint64_t> LsmCatalogs::newest_by_list(Io& io, uint64_t after) {
  const std::string prefix = prefix_ + "catalog/";
  uint64_t newest = 0;
  std::string last = key_of(after);
  while (true) {
    const auto found = TRY(store_.list(io, prefix, last, kListStep));
    for (const ObjectInfo& object : found) {
      newest = std::max(newest, version_of(object.key).value_or(0));
    }
    if (found.size() < kListStep) return newest;
    last = found.back().key;
  }
}

Result<std::optional<LsmCatalog>> LsmCatalogs::newest(Io& io, uint64_t known) {
  for (int i = 0; i < kTriesMax; ++i) {
    uint64_t from = known;
    if (from == 0) {
      const auto hint = TRY(read_hint(io));
      from = hint ? hint->version.get() : 1;
    }
    uint64_t version = 0;
    if (known != 0 || TRY(is_there(io, from))) version = TRY(gallop(io, from));
    if (version == 0 || i > 0) version = std::max(version, TRY(newest_by_list(io, 0)));
    if (version == 0) return std::optional<LsmCatalog>();
    auto catalog = load(io, version);
    if (catalog) return std::optional<LsmCatalog>(catalog.take());
    if (catalog.error().code != Errc::not_found) return catalog.error();
    known = 0;  // It was pruned since, so there are newer ones: once more.
  }
  return fail(Errc::busy, "{}catalog: changes faster than it can be read", prefix_);
}

Result<std::optional<LsmCatalog>> LsmCatalogs::newest_for_writer(Io& io) {
  for (int i = 0; i < kTriesMax; ++i) {
    const auto hint = TRY(read_hint(io));
    const uint64_t version = TRY(newest_by_list(io, hint ? hint->version.get() - 1 : 0));
    if (version == 0 && !hint) return std::optional<LsmCatalog>();
    auto catalog = load(io, version);
    if (catalog) return std::optional<LsmCatalog>(catalog.take());
    if (catalog.error().code != Errc::not_found) return catalog.error();
  }
  return fail(Errc::corrupt, "{}catalog: none is there, but `newest` names one", prefix_);
}

// --- taking over

Result<uint64_t> LsmCatalogs::claim_epoch(Io& io) {
  LsmPointer claim;
  claim.magic = format::kLsmEpochMagic;
  claim.written_ns = static_cast<uint64_t>(io.wall_clock_ns());
  fill_random(io, claim.stamp);
  uint64_t epoch = 0;
  if (const auto hint = TRY(read_hint(io))) {
    claim.tree = hint->tree;
    claim.version = hint->version;
    epoch = hint->epoch;
  }
  while (true) {
    claim.epoch = ++epoch;
    const auto bytes = format::encode(claim);
    const ::iovec body = slice_of(View(bytes));
    const auto put = store_.put(io, epoch_key(epoch), Iovec(&body, 1), {.once = true});
    if (put) return epoch;
    // The acknowledgement may be lost: then it is ours by its stamp.
    const auto there = read_whole(io, epoch_key(epoch), sizeof(LsmPointer));
    if (there && std::ranges::equal(*there, bytes)) return epoch;
    if (put.error().code != Errc::exists) return put.error();
    if (!there) return there.error();
  }
}

Result<void> LsmCatalogs::confirm(Io& io, uint64_t epoch) {
  const auto later = store_.head(io, epoch_key(epoch + 1));
  if (!later && later.error().code == Errc::not_found) return ok;
  if (!later) return later.error();
  return fail(Errc::fenced, "{}: another writer has taken over since", epoch_key(epoch + 1));
}

Result<void> LsmCatalogs::append(Io& io, uint64_t version, uint64_t epoch, View body) {
  const ::iovec slice = slice_of(body);
  const auto put = store_.put(io, key_of(version), Iovec(&slice, 1), {.once = true});
  if (put) return confirm(io, epoch);
  const Errc code = put.error().code;
  if (code != Errc::exists && code != Errc::io && code != Errc::timed_out) return put.error();
  const auto there = read_whole(io, key_of(version), format::kLsmCatalogBytesMax);
  if (there && std::ranges::equal(*there, body)) return confirm(io, epoch);
  if (code != Errc::exists) return put.error();
  if (!there && there.error().code == Errc::not_found) {
    // Made by somebody else, and pruned already.
    return fail(Errc::fenced, "{}: another writer has taken over since", key_of(version));
  }
  if (!there) return there.error();
  const LsmCatalog other = TRY(format::decode_lsm_catalog(*there, version));
  if (other.epoch > epoch) {
    return fail(Errc::fenced, "{}: epoch {} has taken over from {}", key_of(version), other.epoch,
                epoch);
  }
  return fail(Errc::exists, "{}: epoch {} was faster", key_of(version), other.epoch);
}

Result<void> LsmCatalogs::hint(Io& io, const LsmCatalog& catalog) {
  LsmPointer pointer;
  pointer.magic = format::kLsmNewestMagic;
  pointer.tree = catalog.tree;
  pointer.version = catalog.version;
  pointer.epoch = catalog.epoch;
  pointer.stamp = catalog.stamp;
  pointer.written_ns = static_cast<uint64_t>(catalog.written_ns);
  const auto bytes = format::encode(pointer);
  const ::iovec body = slice_of(View(bytes));
  return store_.put(io, prefix_ + "newest", Iovec(&body, 1), {});
}

}  // namespace firn::store
