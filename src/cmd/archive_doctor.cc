// SPDX-License-Identifier: Apache-2.0
// firn archive doctor URL
#include <algorithm>

#include "cmd/commands.h"
#include "io/open_store.h"
#include "io/store_doctor.h"

namespace firn::cmd {
namespace {

constexpr uint32_t kPatience = 20;                          // Seconds: somebody sits and waits.
constexpr uint64_t kPartBytes = uint64_t{5} * 1024 * 1024;  // The smallest that S3 has.

// What a server said comes in sentences that are printable already; quotes may be in them.
std::string quoted(const std::string& text) {
  std::string result = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') result += '\\';
    result += c < ' ' || c >= 0x7f ? '?' : c;
  }
  return result + "\"";
}

std::string json_of(const std::vector<StoreCheck>& checks) {
  std::string text = "[\n";
  for (const StoreCheck& check : checks) {
    text += fmt::format("  {{\"check\": {}, \"result\": \"{}\", \"detail\": {}}}{}\n",
                        quoted(check.name), name_of(check.verdict), quoted(check.detail),
                        &check == &checks.back() ? "" : ",");
  }
  return text + "]\n";
}

std::string table_of(const std::vector<StoreCheck>& checks) {
  std::string text = fmt::format("{:<20} {:<6} {}\n", "CHECK", "RESULT", "DETAIL");
  for (const StoreCheck& check : checks) {
    text += fmt::format("{:<20} {:<6} {}\n", check.name, name_of(check.verdict), check.detail);
  }
  return text;
}

}  // namespace

Result<int> run_archive_doctor(FiberIo& io, const std::string& url, bool json) {
  std::unique_ptr<ObjectStore> store =
      TRY(open_store(io, url, {.part_bytes = kPartBytes, .patience_s = kPatience}));
  const std::vector<StoreCheck> checks =
      TRY(examine_store(io, *store, {.large_bytes = kPartBytes + 12345}));
  TRY(print(json ? json_of(checks) : table_of(checks)));
  const auto bad = std::ranges::find(checks, StoreCheck::Verdict::fail, &StoreCheck::verdict);
  if (bad == checks.end()) return kDone;
  return fail(Errc::unsupported, "{} is not fit for an archive: {}: {}", store->name(), bad->name,
              bad->detail);
}

}  // namespace firn::cmd
