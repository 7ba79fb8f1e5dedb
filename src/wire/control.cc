// SPDX-License-Identifier: Apache-2.0
// Notes on the design. One table says which path and method is which verb and which members its
// body may hold; encoding and decoding both read it. nlohmann-json is used without exceptions:
// parse returns a "discarded" value, and every access looks at the type first.
#include "wire/control.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "base/check.h"
#include "wire/http.h"
#include "wire/text.h"

namespace firn::wire {
namespace {

using Json = nlohmann::json;

constexpr std::string_view kRoot = "/api/v1/";
constexpr int kDepthMax = 4;

enum Member : uint16_t {
  kNone = 0,
  kSize = 1,
  kTo = 2,
  kRepair = 4,
  kSettings = 8,
  kName = 16,
  kForce = 32,
  kSnapshots = 64,
  kKeep = 128,
  kBase = 256,
  kOffset = 512,
  kLimit = 1024,
  kApp = 2048,
  kWith = 4096,
  kSince = 8192,
};
struct MemberName {
  Member member;
  std::string_view name;
};
constexpr std::array<MemberName, 14> kMembers{{
    {kName, "name"},
    {kSize, "size"},
    {kTo, "to"},
    {kSettings, "settings"},
    {kRepair, "repair"},
    {kForce, "force"},
    {kSnapshots, "snapshots"},
    {kKeep, "keep"},
    {kBase, "base"},
    {kOffset, "offset"},
    {kLimit, "limit"},
    {kApp, "app"},
    {kWith, "snapshot"},
    {kSince, "since"},
}};

enum class NameRule : uint8_t { none, disk, snapshot, any };

struct Row {
  ControlVerb verb;
  std::string_view method;
  std::string_view noun;                  // "pool", "jobs", "disks" or "snapshots".
  NameRule named;                         // Whose name follows.
  std::string_view action;                // The last step of the path, or "".
  uint16_t members;                       // What the body may hold ...
  uint16_t required;                      // ... and what it must.
  NameRule name_member = NameRule::none;  // Of kName.
};
constexpr auto kUnnamed = NameRule::none;
constexpr auto kDisk = NameRule::disk;
constexpr auto kSnapshot = NameRule::snapshot;
constexpr auto kAny = NameRule::any;
constexpr std::array<Row, 28> kRows{{
    {ControlVerb::pool_info, "GET", "pool", kUnnamed, "", kNone, kNone},
    {ControlVerb::pool_grow, "POST", "pool", kUnnamed, "grow", kSize, kSize},
    {ControlVerb::pool_check, "POST", "pool", kUnnamed, "check", kRepair, kNone},
    {ControlVerb::job_list, "GET", "jobs", kUnnamed, "", kNone, kNone},
    {ControlVerb::disk_list, "GET", "disks", kUnnamed, "", kNone, kNone},
    {ControlVerb::disk_info, "GET", "disks", kDisk, "", kNone, kNone},
    {ControlVerb::disk_create, "POST", "disks", kUnnamed, "", kName | kSize | kSettings,
     kName | kSize, kDisk},
    {ControlVerb::disk_resize, "POST", "disks", kDisk, "resize", kSize, kSize},
    {ControlVerb::disk_rename, "POST", "disks", kDisk, "rename", kTo, kTo},
    {ControlVerb::disk_delete, "POST", "disks", kDisk, "delete", kSnapshots, kNone},
    {ControlVerb::disk_set, "POST", "disks", kDisk, "set", kSettings, kSettings},
    {ControlVerb::disk_restore, "POST", "disks", kDisk, "restore", kSettings, kSettings},
    {ControlVerb::disk_flush, "POST", "disks", kDisk, "flush", kNone, kNone},
    {ControlVerb::disk_socket, "POST", "disks", kAny, "socket", kNone, kNone},
    {ControlVerb::disk_consolidate, "POST", "disks", kDisk, "consolidate", kKeep, kNone},
    {ControlVerb::disk_shrink, "POST", "disks", kDisk, "shrink", kNone, kNone},
    {ControlVerb::extents, "POST", "disks", kAny, "extents", kBase | kOffset | kLimit, kNone},
    {ControlVerb::snapshot_list, "GET", "disks", kDisk, "snapshots", kNone, kNone},
    {ControlVerb::snapshot_info, "GET", "snapshots", kSnapshot, "", kNone, kNone},
    {ControlVerb::snapshot_create, "POST", "snapshots", kUnnamed, "", kName, kName, kSnapshot},
    {ControlVerb::snapshot_delete, "POST", "snapshots", kSnapshot, "delete", kNone, kNone},
    {ControlVerb::snapshot_revert, "POST", "snapshots", kSnapshot, "revert", kForce, kNone},
    {ControlVerb::snapshot_clone, "POST", "snapshots", kSnapshot, "clone", kTo, kTo},
    {ControlVerb::changes_begin, "POST", "disks", kDisk, "changes-begin", kApp | kWith, kApp},
    {ControlVerb::changes_list, "POST", "disks", kDisk, "changes", kSince | kOffset | kLimit,
     kSince},
    {ControlVerb::changes_apps, "GET", "disks", kDisk, "applications", kNone, kNone},
    {ControlVerb::changes_end, "POST", "disks", kDisk, "changes-end", kApp, kApp},
    {ControlVerb::changes_off, "POST", "disks", kDisk, "changes-off", kNone, kNone},
}};

const Row& row_of(ControlVerb verb) {
  for (const Row& row : kRows) {
    if (row.verb == verb) return row;
  }
  check_failed("row_of", __FILE__, __LINE__, fmt::format("verb {}", static_cast<int>(verb)));
}

Result<void> check_by(NameRule rule, std::string_view name) {
  if (rule == NameRule::snapshot) return check_snapshot_name(name);
  return rule == NameRule::any ? check_any_name(name) : check_disk_name(name);
}

struct Path {
  std::string_view noun;
  std::string_view name;
  std::string_view action;
};

// "/api/v1/disks/NAME/resize" in parts. A pool has no name: its second step is the action.
bool split(std::string_view target, Path& path) {
  if (!target.starts_with(kRoot)) return false;
  target.remove_prefix(kRoot.size());
  std::array<std::string_view, 3> steps;
  size_t count = 0;
  while (true) {
    if (count == steps.size()) return false;
    const size_t slash = target.find('/');
    steps[count++] = target.substr(0, slash);
    if (steps[count - 1].empty()) return false;
    if (slash == std::string_view::npos) break;
    target.remove_prefix(slash + 1);
  }
  path.noun = steps[0];
  if (path.noun == "pool") {
    path.action = steps[1];
    return count <= 2;
  }
  path.name = steps[1];
  path.action = steps[2];
  return true;
}

Result<const Row*> find_row(std::string_view method, const Path& path) {
  bool known = false;
  for (const Row& row : kRows) {
    if (row.noun != path.noun || row.action != path.action ||
        (row.named == NameRule::none) != path.name.empty()) {
      continue;
    }
    if (row.method == method) return &row;
    known = true;
  }
  if (known)
    return fail(Errc::unsupported, "method {} is not for this path", printable(method, 16));
  return fail(Errc::not_found, "no such path in the API; see docs/reference/control.md");
}

Result<void> take_size(std::string_view member, const Json& value, uint64_t& into) {
  if (value.is_number_unsigned()) {
    into = value.get<uint64_t>();
    return ok;
  }
  if (!value.is_string()) {
    return fail(Errc::invalid, "member \"{}\": give bytes as a number, or a text like \"10G\"",
                member);
  }
  into = TRY(parse_size(value.get_ref<const std::string&>()));
  return ok;
}

Result<void> take_settings(const Json& value, ControlRequest& request) {
  if (!value.is_object() || value.size() > kSettingsMax) {
    return fail(Errc::invalid, "member \"settings\": give an object of at most {} texts",
                kSettingsMax);
  }
  for (const auto& [key, text] : value.items()) {
    if (!text.is_string()) {
      return fail(Errc::invalid, "setting \"{}\": give its value as a text", printable(key));
    }
    request.settings.emplace_back(key, text.get_ref<const std::string&>());
  }
  std::sort(request.settings.begin(), request.settings.end());
  return ok;
}

Result<void> take_name(std::string_view member, NameRule rule, const Json& value,
                       std::string& into) {
  if (!value.is_string()) return fail(Errc::invalid, "member \"{}\": give a text", member);
  into = value.get_ref<const std::string&>();
  return check_by(rule, into);
}

Result<void> take_flag(std::string_view member, const Json& value, bool& into) {
  if (!value.is_boolean()) {
    return fail(Errc::invalid, "member \"{}\": give true or false", member);
  }
  into = value.get<bool>();
  return ok;
}

Result<void> take_count(std::string_view member, const Json& value, uint64_t most,
                        std::optional<uint64_t>& into) {
  if (!value.is_number_unsigned() || value.get<uint64_t>() > most) {
    return fail(Errc::invalid, "member \"{}\": give a number from 0 to {}", member, most);
  }
  into = value.get<uint64_t>();
  return ok;
}

// A change id; disk/ knows what one is.
Result<void> take_since(const Json& value, ControlRequest& request) {
  constexpr size_t kIdBytesMax = 128;
  if (!value.is_string() || value.get_ref<const std::string&>().size() > kIdBytesMax) {
    return fail(Errc::invalid, "member \"since\": give a change id");
  }
  request.since = value.get_ref<const std::string&>();
  return ok;
}

Member member_of(std::string_view key) {
  for (const MemberName& each : kMembers) {
    if (each.name == key) return each.member;
  }
  return kNone;
}

Result<void> take_member(const Row& row, Member member, const Json& value,
                         ControlRequest& request) {
  switch (member) {
    case kSize:
      return take_size("size", value, request.bytes);
    case kTo:
      return take_name("to", NameRule::disk, value, request.to);
    case kName:
      return take_name("name", row.name_member, value, request.name);
    case kBase:
      return take_name("base", NameRule::any, value, request.base);
    case kSettings:
      return take_settings(value, request);
    case kRepair:
      return take_flag("repair", value, request.repair);
    case kForce:
      return take_flag("force", value, request.force);
    case kSnapshots:
      return take_flag("snapshots", value, request.snapshots);
    case kKeep:
      return take_count("keep", value, UINT32_MAX, request.keep);
    case kOffset:
      return take_size("offset", value, request.offset);
    case kLimit:
      return take_count("limit", value, UINT64_MAX, request.limit);
    case kApp:
      return take_name("app", NameRule::disk, value, request.app);
    case kWith:
      return take_name("snapshot", NameRule::disk, value, request.snapshot);
    case kSince:
      return take_since(value, request);
    case kNone:
      break;
  }
  return ok;
}

// Of the first of them.
std::string_view name_of_member(uint16_t members) {
  for (const MemberName& each : kMembers) {
    if ((members & each.member) != 0) return each.name;
  }
  return "";
}

// Discards what lies too deep, and says that it did.
Json parse_bounded(std::string_view body, bool& too_deep) {
  const auto look = [&](int depth, Json::parse_event_t, Json&) {
    if (depth <= kDepthMax) return true;
    too_deep = true;
    return false;
  };
  return Json::parse(body, look, /*allow_exceptions=*/false);
}

Result<void> take_body(const Row& row, std::string_view body, ControlRequest& request) {
  uint16_t seen = 0;
  if (!body.empty()) {
    bool too_deep = false;
    const Json json = parse_bounded(body, too_deep);
    if (too_deep || !json.is_object()) {
      return fail(Errc::invalid, "the body is not a JSON object: {}", printable(body, 40));
    }
    for (const auto& [key, value] : json.items()) {
      const Member member = member_of(key);
      if (member == kNone || (row.members & member) == 0) {
        return fail(Errc::invalid, "member \"{}\" is not known here", printable(key));
      }
      TRY(take_member(row, member, value, request));
      seen = static_cast<uint16_t>(seen | member);
    }
  }
  const auto missing = static_cast<uint16_t>(row.required & ~seen);
  if (missing != 0) return fail(Errc::invalid, "member \"{}\" is missing", name_of_member(missing));
  return ok;
}

}  // namespace

bool only_looks(ControlVerb verb) {
  return verb == ControlVerb::extents || row_of(verb).method == "GET";
}

Result<void> check_control_name(ControlVerb verb, std::string_view name) {
  const Row& row = row_of(verb);
  const NameRule rule = row.named == NameRule::none ? row.name_member : row.named;
  return rule == NameRule::none ? ok : check_by(rule, name);
}

Result<ControlRequest> decode_control(std::string_view method, std::string_view target,
                                      std::string_view body) {
  Path path;
  if (!split(target, path)) {
    return fail(Errc::not_found, "no such path in the API; see docs/reference/control.md");
  }
  const Row& row = *TRY(find_row(method, path));
  ControlRequest request;
  request.verb = row.verb;
  if (row.named != NameRule::none) {
    TRY(check_by(row.named, path.name));
    request.name = path.name;
  }
  if (body.size() > kControlBodyBytesMax) {
    return fail(Errc::invalid, "the body has {} bytes; at most {} are allowed", body.size(),
                kControlBodyBytesMax);
  }
  TRY(take_body(row, body, request));
  return request;
}

ControlCall encode_control(const ControlRequest& request) {
  const Row& row = row_of(request.verb);
  ControlCall call;
  call.method = row.method;
  call.target = fmt::format("{}{}", kRoot, row.noun);
  if (row.named != NameRule::none) call.target += "/" + request.name;
  if (!row.action.empty()) call.target += fmt::format("/{}", row.action);
  Json body = Json::object();
  if ((row.members & kName) != 0) body["name"] = request.name;
  if ((row.members & kSize) != 0) body["size"] = request.bytes;
  if ((row.members & kTo) != 0) body["to"] = request.to;
  if ((row.members & kRepair) != 0) body["repair"] = request.repair;
  if ((row.members & kApp) != 0) body["app"] = request.app;
  if ((row.members & kWith) != 0 && !request.snapshot.empty()) {
    body["snapshot"] = request.snapshot;
  }
  if ((row.members & kSince) != 0) body["since"] = request.since;
  if ((row.members & kSettings) != 0) {
    Json settings = Json::object();
    for (const auto& [key, value] : request.settings) settings[key] = value;
    body["settings"] = std::move(settings);
  }
  if ((row.members & kForce) != 0) body["force"] = request.force;
  if ((row.members & kSnapshots) != 0) body["snapshots"] = request.snapshots;
  if ((row.members & kKeep) != 0 && request.keep.has_value()) body["keep"] = *request.keep;
  if ((row.members & kBase) != 0 && !request.base.empty()) body["base"] = request.base;
  if ((row.members & kOffset) != 0) body["offset"] = request.offset;
  if ((row.members & kLimit) != 0 && request.limit.has_value()) body["limit"] = *request.limit;
  if (!body.empty()) call.body = body.dump(-1, ' ', false, Json::error_handler_t::replace);
  return call;
}

int status_of(Errc code) {
  switch (code) {
    case Errc::invalid:
      return 400;
    case Errc::not_found:
      return 404;
    case Errc::exists:
    case Errc::busy:
      return 409;
    case Errc::unsupported:
    case Errc::too_new:
      return 501;
    case Errc::fenced:
    case Errc::cancelled:
      return 503;
    case Errc::timed_out:
      return 504;
    case Errc::no_space:
      return 507;
    case Errc::io:
    case Errc::corrupt:
      break;
  }
  return 500;
}

std::string encode_problem(int status, Errc code, std::string_view sentence) {
  Json json = {{"type", "about:blank"},
               {"title", reason_of(status)},
               {"status", status},
               {"code", name_of(code)},
               {"detail", sentence}};
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

Error decode_problem(int status, std::string_view body) {
  const Json json = Json::parse(body, nullptr, /*allow_exceptions=*/false);
  if (json.is_object()) {
    const auto code = json.find("code");
    const auto detail = json.find("detail");
    if (code != json.end() && code->is_string() && detail != json.end() && detail->is_string()) {
      for (uint8_t number = 1; number <= static_cast<uint8_t>(Errc::timed_out); ++number) {
        const auto errc = static_cast<Errc>(number);
        if (name_of(errc) != code->get_ref<const std::string&>()) continue;
        return fail_text(errc, 0, printable(detail->get_ref<const std::string&>(), 2048));
      }
    }
  }
  return fail(Errc::io,
              "the daemon answered with HTTP status {} and no reason that could be read: {}",
              status, printable(body));
}

}  // namespace firn::wire
