// SPDX-License-Identifier: Apache-2.0
#include "format/changes.h"

#include <algorithm>
#include <charconv>

#include "base/check.h"
#include "base/units.h"
#include "format/tagged.h"

namespace firn::format {
namespace {

constexpr size_t kUuidText = 36;

int digit_of(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return -1;
}

Result<void> check_head(View bytes, RecordKind kind, std::string_view what) {
  if (static_cast<RecordKind>(bytes[0]) != kind) {
    return fail(Errc::corrupt, "catalog: a record of kind {} where {} was expected",
                static_cast<unsigned>(bytes[0]), what);
  }
  if (bytes[1] != std::byte{1}) {
    return fail(Errc::too_new, "catalog: {} of version {}", what, static_cast<unsigned>(bytes[1]));
  }
  return ok;
}

template <class Record>
Result<void> check_tail(const Record& record, const std::string& whose) {
  if (record.tail_bytes > record.tail.size() || !all_zero(record.reserved) ||
      !all_zero(record.reserved0) || !all_zero(View(record.tail).subspan(record.tail_bytes))) {
    return fail(Errc::corrupt, "catalog: {}: its tail is impossible", whose);
  }
  return walk_tail(View(record.tail).first(record.tail_bytes), whose,
                   [](uint16_t, const std::string&) -> Result<bool> { return false; });
}

bool root_is_possible(const TreeRoot& root) {
  return all_zero(root.reserved) && root.page <= kPageNoMax &&
         static_cast<uint8_t>(root.level) <= kLevelMax &&
         (root.page == kNoPage ? root.level == std::byte{} : !is_info_page(root.page));
}

size_t growths_of(const ChangesRecord& record) {
  size_t count = 0;
  while (count < kGrowths && record.growths[count].counter != 0) ++count;
  return count;
}

bool growths_are_possible(const ChangesRecord& record) {
  const size_t count = growths_of(record);
  for (size_t i = 0; i < count; ++i) {
    const Growth& one = record.growths[i];
    if (one.counter > record.event_counter + 1 || one.first_block > kDiskBytesMax) return false;
    if (i > 0 && (one.first_block <= record.growths[i - 1].first_block ||
                  one.counter < record.growths[i - 1].counter)) {
      return false;
    }
  }
  return all_zero(std::as_bytes(std::span(record.growths).subspan(count)));
}

}  // namespace

Result<Uuid> parse_uuid(std::string_view text) {
  Uuid uuid{};
  const auto bad = [&] { return fail(Errc::invalid, "'{}' is not a uuid", text); };
  if (text.size() != kUuidText) return bad();
  size_t at = 0;
  for (size_t i = 0; i < uuid.size(); ++i) {
    if ((i == 4 || i == 6 || i == 8 || i == 10) && text[at++] != '-') return bad();
    const int high = digit_of(text[at]);
    const int low = digit_of(text[at + 1]);
    if (high < 0 || low < 0) return bad();
    uuid[i] = static_cast<std::byte>(high * 16 + low);
    at += 2;
  }
  return uuid;
}

std::string text_of(const ChangeId& id) {
  return fmt::format("{}/{}/{}", uuid_text(id.disk), uuid_text(id.branch), id.counter);
}

Result<ChangeId> parse_change_id(std::string_view text) {
  constexpr size_t kNumberAt = 2 * (kUuidText + 1);
  const auto bad = [&] {
    return fail(Errc::invalid, "'{}' is not a change id; one looks like DISK-UUID/BRANCH-UUID/7",
                text.substr(0, 200));
  };
  if (text.size() <= kNumberAt || text[kUuidText] != '/' || text[kNumberAt - 1] != '/') {
    return bad();
  }
  const Result<Uuid> disk = parse_uuid(text.substr(0, kUuidText));
  const Result<Uuid> branch = parse_uuid(text.substr(kUuidText + 1, kUuidText));
  if (!disk || !branch) return bad();
  ChangeId id{*disk, *branch, 0};
  const std::string_view number = text.substr(kNumberAt);
  if (number.size() > 1 && number[0] == '0') return bad();  // One text for one id.
  const auto [end, error] =
      std::from_chars(number.data(), number.data() + number.size(), id.counter);
  if (error != std::errc{} || end != number.data() + number.size()) return bad();
  return id;
}

uint32_t change_block_shift(uint64_t disk_bytes) {
  uint32_t shift = kChangeBlockShift;
  while (shift < kChangeBlockShiftMax && disk_bytes >> shift > kChangeBlocksWanted) ++shift;
  return shift;
}

Result<ChangesRecord> decode_changes(View bytes) {
  TRY(check_head(bytes, RecordKind::changes, "a change tracking record"));
  const auto record = load<ChangesRecord>(bytes);
  const std::string whose = fmt::format("change tracking of disk {}", uuid_text(record.disk));
  const auto state = static_cast<ChangesState>(record.state);
  const auto shift = static_cast<uint32_t>(record.block_shift);
  if ((state != ChangesState::clean && state != ChangesState::open &&
       state != ChangesState::invalid) ||
      shift < kChangeBlockShift || shift > kChangeBlockShiftMax || record.bytes > kDiskBytesMax ||
      record.event_counter > kEventMax || record.valid_from > record.event_counter ||
      !root_is_possible(record.log) || !root_is_possible(record.intents) ||
      !growths_are_possible(record)) {
    return fail(Errc::corrupt, "catalog: {} is impossible", whose);
  }
  TRY(check_tail(record, whose));
  return record;
}

std::string name_of(const ApplicationRecord& record) {
  return std::string(record.name.data(),
                     std::min(static_cast<size_t>(record.name_bytes), record.name.size()));
}

Result<ApplicationRecord> decode_application(View bytes) {
  TRY(check_head(bytes, RecordKind::application, "an application"));
  const auto record = load<ApplicationRecord>(bytes);
  const auto length = static_cast<size_t>(record.name_bytes);
  const std::string name = name_of(record);
  if (length > record.name.size() || !name_is_valid(name)) {
    return fail(Errc::corrupt, "catalog: an application with a bad name");
  }
  const std::string whose = fmt::format("application '{}'", name);
  if (!all_zero(std::as_bytes(std::span(record.name)).subspan(length)) ||
      static_cast<uint8_t>(record.has_previous) > 1 || record.counter > kEventMax ||
      (record.has_previous == std::byte{1} ? record.previous >= record.counter
                                           : record.previous != 0)) {
    return fail(Errc::corrupt, "catalog: {} is impossible", whose);
  }
  TRY(check_tail(record, whose));
  return record;
}

uint64_t grown_counter(const ChangesRecord& record, uint64_t block) {
  uint64_t counter = 0;
  for (const Growth& one : record.growths) {
    if (one.counter == 0 || one.first_block > block) break;
    counter = one.counter;
  }
  return counter;
}

void add_growth(ChangesRecord& record, uint64_t first_block, uint64_t counter) {
  cut_growths(record, first_block);
  size_t count = growths_of(record);
  if (count > 0 && record.growths[count - 1].counter == counter) return;
  if (count == kGrowths) {  // The last two become one: the lower beginning, the higher counter.
    Growth& last = record.growths[count - 2];
    CHECK(last.counter <= record.growths[count - 1].counter);
    last.counter = record.growths[count - 1].counter;
    record.growths[--count] = {};
  }
  record.growths[count] = {first_block, counter};
}

void cut_growths(ChangesRecord& record, uint64_t blocks) {
  for (Growth& one : record.growths) {
    if (one.counter != 0 && one.first_block >= blocks) one = {};
  }
}

}  // namespace firn::format
