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
  kApp = 32,
  kSnapshot = 64,
  kSince = 128,
  kOffset = 256,
  kLimit = 512,
};

struct Row {
  ControlVerb verb;
  std::string_view method;
  std::string_view noun;    // "pool" or "disks".
  bool named;               // Whether a disk's name follows.
  std::string_view action;  // The last step of the path, or "".
  uint16_t members;         // What the body may hold ...
  uint16_t required;        // ... and what it must.
};
constexpr std::array<Row, 17> kRows{{
    {ControlVerb::pool_info, "GET", "pool", false, "", kNone, kNone},
    {ControlVerb::pool_grow, "POST", "pool", false, "grow", kSize, kSize},
    {ControlVerb::pool_check, "POST", "pool", false, "check", kRepair, kNone},
    {ControlVerb::disk_list, "GET", "disks", false, "", kNone, kNone},
    {ControlVerb::disk_info, "GET", "disks", true, "", kNone, kNone},
    {ControlVerb::disk_create, "POST", "disks", false, "", kName | kSize | kSettings,
     kName | kSize},
    {ControlVerb::disk_resize, "POST", "disks", true, "resize", kSize, kSize},
    {ControlVerb::disk_rename, "POST", "disks", true, "rename", kTo, kTo},
    {ControlVerb::disk_delete, "POST", "disks", true, "delete", kNone, kNone},
    {ControlVerb::disk_set, "POST", "disks", true, "set", kSettings, kSettings},
    {ControlVerb::disk_flush, "POST", "disks", true, "flush", kNone, kNone},
    {ControlVerb::disk_socket, "POST", "disks", true, "socket", kNone, kNone},
    {ControlVerb::changes_begin, "POST", "disks", true, "changes-begin", kApp | kSnapshot, kApp},
    {ControlVerb::changes_list, "POST", "disks", true, "changes", kSince | kOffset | kLimit,
     kSince},
    {ControlVerb::changes_apps, "GET", "disks", true, "applications", kNone, kNone},
    {ControlVerb::changes_end, "POST", "disks", true, "changes-end", kApp, kApp},
    {ControlVerb::changes_off, "POST", "disks", true, "changes-off", kNone, kNone},
}};

const Row& row_of(ControlVerb verb) {
  for (const Row& row : kRows) {
    if (row.verb == verb) return row;
  }
  check_failed("row_of", __FILE__, __LINE__, fmt::format("verb {}", static_cast<int>(verb)));
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
    if (row.noun != path.noun || row.action != path.action || row.named == path.name.empty())
      continue;
    if (row.method == method) return &row;
    known = true;
  }
  if (known)
    return fail(Errc::unsupported, "method {} is not for this path", printable(method, 16));
  return fail(Errc::not_found, "no such path in the API; see docs/reference/control.md");
}

Result<void> take_size(const Json& value, ControlRequest& request) {
  if (value.is_number_unsigned()) {
    request.bytes = value.get<uint64_t>();
    return ok;
  }
  if (!value.is_string()) {
    return fail(Errc::invalid, "member \"size\": give bytes as a number, or a text like \"10G\"");
  }
  request.bytes = TRY(parse_size(value.get_ref<const std::string&>()));
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

Result<void> take_name(std::string_view member, const Json& value, std::string& into) {
  if (!value.is_string()) return fail(Errc::invalid, "member \"{}\": give a text", member);
  into = value.get_ref<const std::string&>();
  return check_disk_name(into);
}

Result<void> take_number(std::string_view member, const Json& value, uint64_t& into) {
  if (!value.is_number_unsigned())
    return fail(Errc::invalid, "member \"{}\": give a number", member);
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
  if (key == "app") return kApp;
  if (key == "snapshot") return kSnapshot;
  if (key == "since") return kSince;
  if (key == "offset") return kOffset;
  if (key == "limit") return kLimit;
  if (key == "size") return kSize;
  if (key == "to") return kTo;
  if (key == "repair") return kRepair;
  if (key == "settings") return kSettings;
  if (key == "name") return kName;
  return kNone;
}

Result<void> take_member(Member member, const Json& value, ControlRequest& request) {
  switch (member) {
    case kSize:
      return take_size(value, request);
    case kTo:
      return take_name("to", value, request.to);
    case kName:
      return take_name("name", value, request.name);
    case kSettings:
      return take_settings(value, request);
    case kRepair:
      if (!value.is_boolean()) return fail(Errc::invalid, "member \"repair\": give true or false");
      request.repair = value.get<bool>();
      return ok;
    case kApp:
      return take_name("app", value, request.app);
    case kSnapshot:
      return take_name("snapshot", value, request.snapshot);
    case kSince:
      return take_since(value, request);
    case kOffset:
      return take_number("offset", value, request.offset);
    case kLimit:
      return take_number("limit", value, request.limit);
    case kNone:
      break;
  }
  return ok;
}

std::string_view name_of_member(uint16_t members) {
  if ((members & kApp) != 0) return "app";
  if ((members & kSince) != 0) return "since";
  if ((members & kName) != 0) return "name";
  if ((members & kSize) != 0) return "size";
  if ((members & kTo) != 0) return "to";
  return "settings";
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
      TRY(take_member(member, value, request));
      seen = static_cast<uint16_t>(seen | member);
    }
  }
  const auto missing = static_cast<uint16_t>(row.required & ~seen);
  if (missing != 0) return fail(Errc::invalid, "member \"{}\" is missing", name_of_member(missing));
  return ok;
}

}  // namespace

bool only_looks(ControlVerb verb) { return row_of(verb).method == "GET"; }

Result<ControlRequest> decode_control(std::string_view method, std::string_view target,
                                      std::string_view body) {
  Path path;
  if (!split(target, path)) {
    return fail(Errc::not_found, "no such path in the API; see docs/reference/control.md");
  }
  const Row& row = *TRY(find_row(method, path));
  ControlRequest request;
  request.verb = row.verb;
  if (row.named) {
    TRY(check_disk_name(path.name));
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
  if (row.named) call.target += "/" + request.name;
  if (!row.action.empty()) call.target += fmt::format("/{}", row.action);
  Json body = Json::object();
  if ((row.members & kName) != 0) body["name"] = request.name;
  if ((row.members & kSize) != 0) body["size"] = request.bytes;
  if ((row.members & kTo) != 0) body["to"] = request.to;
  if ((row.members & kRepair) != 0) body["repair"] = request.repair;
  if ((row.members & kApp) != 0) body["app"] = request.app;
  if ((row.members & kSnapshot) != 0 && !request.snapshot.empty()) {
    body["snapshot"] = request.snapshot;
  }
  if ((row.members & kSince) != 0) body["since"] = request.since;
  if ((row.members & kOffset) != 0) body["offset"] = request.offset;
  if ((row.members & kLimit) != 0) body["limit"] = request.limit;
  if ((row.members & kSettings) != 0) {
    Json settings = Json::object();
    for (const auto& [key, value] : request.settings) settings[key] = value;
    body["settings"] = std::move(settings);
  }
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
