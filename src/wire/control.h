// SPDX-License-Identifier: Apache-2.0
// The control protocol: what can be asked of a pool, as a struct and as an HTTP request with a JSON
// body. docs/reference/control.md is its page.
//
// Contract:
//  C1  decode_control takes any bytes and returns a request whose names, sizes and keys obey their
//      rules, or a sentence that names what was wrong: Errc::not_found for an unknown path,
//      Errc::unsupported for the wrong method on a known one, Errc::invalid for the rest.
//  C2  A member of the body that the verb does not know is refused: a misspelt option is not
//      ignored.
//  C3  decode_control(encode_control(x)) == x.
//
// Does not execute anything, and does not know which settings exist (engine/settings).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"

namespace firn::wire {

inline constexpr size_t kControlBodyBytesMax = 64 * 1024;
inline constexpr size_t kSettingsMax = 64;

enum class ControlVerb : uint8_t {
  pool_info = 1,
  pool_grow = 2,
  pool_check = 3,
  disk_list = 4,
  disk_info = 5,
  disk_create = 6,
  disk_resize = 7,
  disk_rename = 8,
  disk_delete = 9,
  disk_set = 10,
  disk_flush = 11,        // What was written to the disk before is durable afterwards.
  disk_socket = 12,       // A socket that serves this disk or snapshot alone, once; see `firn nbd`.
  disk_consolidate = 13,  // Deletes all snapshots but the newest `keep`, or what the settings say.
  snapshot_list = 14,
  snapshot_info = 15,
  snapshot_create = 16,
  snapshot_delete = 17,
  snapshot_revert = 18,
  snapshot_clone = 19,
  extents = 20,  // What is allocated; with `base`, what differs from that.
  job_list = 21,
  changes_begin = 22,
  changes_list = 23,
  changes_apps = 24,
  changes_end = 25,
  changes_off = 26,
  disk_shrink = 27,  // Moves grains until sparse storage blocks are empty; answers when it is done.
  disk_restore = 28,  // From an archive, served at once; `settings` says from where.
};

inline constexpr uint64_t kExtentsMax = 100'000;  // In one answer.

struct ControlRequest {
  ControlVerb verb = ControlVerb::pool_info;
  std::string name{};   // The disk, or DISK@SNAPSHOT; of what creates the new one.
  std::string to{};     // disk_rename, snapshot_clone.
  uint64_t bytes = 0;   // disk_create, disk_resize, pool_grow.
  bool repair = false;  // pool_check.
  // disk_set, disk_create, disk_restore. Sorted by key, each key once. An empty value restores the
  // default.
  std::vector<std::pair<std::string, std::string>> settings{};
  bool force = false;               // snapshot_revert: under its clients.
  bool snapshots = false;           // disk_delete: with its snapshots.
  std::optional<uint64_t> keep{};   // disk_consolidate.
  std::string base{};               // extents: a disk or snapshot.
  uint64_t offset = 0;              // extents, changes_list: from here on ...
  std::optional<uint64_t> limit{};  // ... at most so many.
  // Change tracking.
  std::string app{};       // changes_begin, changes_end.
  std::string snapshot{};  // changes_begin; empty: none.
  std::string since{};     // changes_list: a change id.
  bool operator==(const ControlRequest&) const = default;
};

// The rule that the verb has for `name`.
Result<void> check_control_name(ControlVerb verb, std::string_view name);

// Whether the verb leaves everything as it was: such verbs, and no others, are answered over TCP.
bool only_looks(ControlVerb verb);

// The three parts of an HTTP request.
struct ControlCall {
  std::string method;
  std::string target;
  std::string body;
};

Result<ControlRequest> decode_control(std::string_view method, std::string_view target,
                                      std::string_view body);
ControlCall encode_control(const ControlRequest& request);

// Errors as problem+json (RFC 9457), with the member "code" for the Errc.
int status_of(Errc code);
std::string encode_problem(int status, Errc code, std::string_view sentence);
// The error that a body of encode_problem stands for. A body that is none becomes Errc::io.
Error decode_problem(int status, std::string_view body);

}  // namespace firn::wire
