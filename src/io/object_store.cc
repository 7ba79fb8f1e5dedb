// SPDX-License-Identifier: Apache-2.0
#include "io/object_store.h"

#include <algorithm>

namespace firn {
namespace {

constexpr size_t kFirstRead = size_t{64} * 1024;

bool is_key_character(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
         c == '_' || c == '=' || c == '-';
}

bool is_key_part(std::string_view part) {
  return !part.empty() && part != "." && part != ".." &&
         std::ranges::all_of(part, is_key_character);
}

}  // namespace

bool is_object_key(std::string_view key) {
  if (key.size() > kObjectKeyBytesMax) return false;
  for (;;) {
    const size_t slash = key.find('/');
    if (!is_key_part(key.substr(0, slash))) return false;
    if (slash == std::string_view::npos) return true;
    key.remove_prefix(slash + 1);
  }
}

bool is_storage_class(std::string_view name) {
  return !name.empty() && name.size() <= 32 && std::ranges::all_of(name, [](char c) {
    return (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
  });
}

Result<std::vector<std::byte>> get_whole(Io& io, ObjectStore& store, const std::string& key,
                                         size_t bytes_max) {
  // One request most of the time: room for a small object, and then for the rest.
  std::vector<std::byte> body(std::min<size_t>(bytes_max, kFirstRead) + 1);
  size_t got = TRY(store.get(io, key, 0, body));
  while (got == body.size() && got <= bytes_max) {
    body.resize(std::min(bytes_max, 4 * got) + 1);
    got += TRY(store.get(io, key, got, Bytes(body).subspan(got)));
  }
  if (got > bytes_max) {
    return fail(Errc::corrupt, "object {} in {} has more than {} bytes", key, store.name(),
                bytes_max);
  }
  body.resize(got);
  return body;
}

Result<void> put_once(Io& io, ObjectStore& store, const std::string& key, View body,
                      const std::string& storage_class) {
  const ::iovec slice = slice_of(body);
  const PutHow how{.once = true, .storage_class = storage_class};
  const Result<void> done = store.put(io, key, Iovec(&slice, 1), how);
  if (done) return ok;
  const Errc code = done.error().code;
  if (code != Errc::io && code != Errc::timed_out) return done.error();
  Result<std::vector<std::byte>> there = get_whole(io, store, key, body.size());
  if (there && std::ranges::equal(*there, body)) return ok;
  if (there || there.error().code == Errc::corrupt) {
    return fail(Errc::exists, "object {} in {} is there already", key, store.name());
  }
  return done.error();
}

}  // namespace firn
