// SPDX-License-Identifier: Apache-2.0
#include "format/catalog.h"

#include <algorithm>

#include "base/check.h"
#include "format/tagged.h"

namespace firn::format {
namespace {

void append(std::string& tail, uint16_t tag, std::string_view value) {
  const TagHead head{tag, static_cast<uint16_t>(value.size())};
  const View bytes = view_of(head);
  for (const std::byte b : bytes) tail.push_back(static_cast<char>(b));
  tail.append(value);
}

struct EventField {  // The application's name follows.
  std::array<std::byte, 16> branch{};
  le64 counter;
  le64 previous;
  std::byte has_previous{};
};
static_assert(OnDisk<EventField, 33>);

Result<void> decode_event(const std::string& value, Named& named) {
  const View bytes = std::as_bytes(std::span(value));
  const auto bad = [&] {
    return fail(Errc::corrupt, "catalog: record '{}': an impossible event", named.name);
  };
  if (named.event || bytes.size() < sizeof(EventField)) return bad();
  const auto field = load<EventField>(bytes);
  SnapshotEvent event{field.branch, field.counter, value.substr(sizeof field),
                      field.has_previous == std::byte{1}, field.previous};
  if (static_cast<uint8_t>(field.has_previous) > 1 ||
      (event.has_previous ? event.previous >= event.counter : event.previous != 0) ||
      (!event.application.empty() && !name_is_valid(event.application))) {
    return bad();
  }
  named.event = std::move(event);
  return ok;
}

void append_event(std::string& tail, const SnapshotEvent& event) {
  EventField field{event.branch, event.counter, event.previous,
                   std::byte{event.has_previous ? uint8_t{1} : uint8_t{0}}};
  std::string value(sizeof field, '\0');
  std::memcpy(value.data(), &field, sizeof field);
  append(tail, kTagEvent, value + event.application);
}

Result<void> decode_tail(View tail, Named& named) {
  return walk_tail(tail, named.name, [&](uint16_t tag, const std::string& value) -> Result<bool> {
    if (tag == kTagDisk && named.kind == RecordKind::snapshot) {
      if (value.size() != named.disk.size() || named.disk != Uuid{}) {
        return fail(Errc::corrupt, "catalog: record '{}': a bad uuid of its disk", named.name);
      }
      std::memcpy(named.disk.data(), value.data(), value.size());
      return true;
    }
    if (tag == kTagEvent && named.kind == RecordKind::snapshot) {
      TRY(decode_event(value, named));
      return true;
    }
    if (tag != kTagSetting) {
      append(named.unknown, tag, value);
      return false;
    }
    const size_t split = value.find('\0');
    if (split == std::string::npos || split == 0) {
      return fail(Errc::corrupt, "catalog: record '{}': a setting without a key", named.name);
    }
    if (!named.settings.emplace(value.substr(0, split), value.substr(split + 1)).second) {
      return fail(Errc::corrupt, "catalog: record '{}': a setting is there twice", named.name);
    }
    return true;
  });
}

bool unused_is_zero(const NameRecord& record) {
  const auto name_bytes = static_cast<size_t>(record.name_bytes);
  return record.reserved0 == std::byte{} && all_zero(record.reserved) &&
         all_zero(std::as_bytes(std::span(record.name)).subspan(name_bytes)) &&
         all_zero(View(record.tail).subspan(record.tail_bytes));
}

}  // namespace

bool name_is_valid(std::string_view name) {
  if (name.empty() || name.size() > kNameBytesMax || name[0] == '.' || name[0] == '-') return false;
  return std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '_' || c == ':' || c == '-';
  });
}

Result<NameRecord> encode(const Named& named) {
  CHECK(named.kind == RecordKind::disk || named.kind == RecordKind::snapshot);
  CHECK(name_is_valid(named.name) && named.layer != 0);
  NameRecord record;
  record.kind = static_cast<std::byte>(named.kind);
  record.name_bytes = static_cast<std::byte>(named.name.size());
  record.layer = named.layer;
  record.uuid = named.uuid;
  record.created_ns = named.created_ns;
  std::copy(named.name.begin(), named.name.end(), record.name.begin());
  std::string tail;
  if (named.kind == RecordKind::snapshot) {
    CHECK(named.disk != Uuid{});
    const auto* const uuid = reinterpret_cast<const char*>(named.disk.data());
    append(tail, kTagDisk, std::string_view(uuid, named.disk.size()));
  }
  if (named.event) append_event(tail, *named.event);
  for (const auto& [key, value] : named.settings) {
    if (key.empty() || key.find('\0') != std::string::npos) {
      return fail(Errc::invalid, "disk '{}': a setting needs a key, without a zero byte in it",
                  named.name);
    }
    append(tail, kTagSetting, key + std::string(1, '\0') + value);
  }
  tail += named.unknown;
  if (tail.size() > record.tail.size()) {
    return fail(Errc::no_space, "disk '{}': its settings take {} bytes, there is room for {}",
                named.name, tail.size(), record.tail.size());
  }
  record.tail_bytes = static_cast<uint16_t>(tail.size());
  std::memcpy(record.tail.data(), tail.data(), tail.size());
  return record;
}

Result<Named> decode_name(View bytes) {
  const auto record = load<NameRecord>(bytes);
  Named named;
  named.kind = static_cast<RecordKind>(record.kind);
  if (named.kind != RecordKind::disk && named.kind != RecordKind::snapshot) {
    return fail(Errc::corrupt, "catalog: a record of kind {} where a name was expected",
                static_cast<unsigned>(record.kind));
  }
  if (record.version != std::byte{1}) {
    return fail(Errc::too_new, "catalog: a name record of version {}",
                static_cast<unsigned>(record.version));
  }
  const auto length = static_cast<size_t>(record.name_bytes);
  if (length > record.name.size())
    return fail(Errc::corrupt, "catalog: a name of {} bytes", length);
  named.name.assign(record.name.data(), length);
  if (!name_is_valid(named.name)) return fail(Errc::corrupt, "catalog: a record with a bad name");
  if (record.continuation != 0) {
    return fail(Errc::too_new, "catalog: record '{}' goes on elsewhere, unknown to this version",
                named.name);
  }
  if (record.layer == 0 || record.tail_bytes > record.tail.size() || !unused_is_zero(record)) {
    return fail(Errc::corrupt, "catalog: record '{}' is impossible", named.name);
  }
  named.layer = record.layer;
  named.uuid = record.uuid;
  named.created_ns = record.created_ns;
  TRY(decode_tail(View(record.tail).first(record.tail_bytes), named));
  if (named.kind == RecordKind::snapshot && named.disk == Uuid{}) {
    return fail(Errc::corrupt, "catalog: snapshot '{}' does not say of which disk", named.name);
  }
  return named;
}

Result<LayerRecord> decode_layer(View bytes) {
  const auto record = load<LayerRecord>(bytes);
  if (static_cast<RecordKind>(record.kind) != RecordKind::layer) {
    return fail(Errc::corrupt, "catalog: a record of kind {} where a layer was expected",
                static_cast<unsigned>(record.kind));
  }
  if (record.version != std::byte{1}) {
    return fail(Errc::too_new, "catalog: a layer record of version {}",
                static_cast<unsigned>(record.version));
  }
  const auto state = static_cast<LayerState>(record.state);
  if (record.layer == 0 || record.family == 0 || record.family >= kFamiliesReserved ||
      record.parent == record.layer || record.bytes > kDiskBytesMax ||
      static_cast<uint8_t>(record.root_level) >= kLevelMax ||
      (state != LayerState::live && state != LayerState::frozen && state != LayerState::dropping) ||
      !all_zero(record.reserved) || record.tail_bytes > record.tail.size() ||
      !all_zero(
          View(record.tail).subspan(std::min<size_t>(record.tail_bytes, record.tail.size())))) {
    return fail(Errc::corrupt, "catalog: layer {} of family {} is impossible", record.layer.get(),
                record.family.get());
  }
  TRY(decode_index_entry(record.root));
  TRY(walk_tail(View(record.tail).first(record.tail_bytes),
                fmt::format("layer {}", record.layer.get()),
                [](uint16_t, const std::string&) -> Result<bool> { return false; }));
  return record;
}

Result<RecordKind> kind_of_record(View record) {
  const auto kind = static_cast<uint8_t>(record[0]);
  if (kind > static_cast<uint8_t>(RecordKind::application)) {
    return fail(Errc::too_new, "catalog: a record of kind {}, unknown to this version", kind);
  }
  if (kind == 0 && !all_zero(record.first(kRecordBytes))) {
    return fail(Errc::corrupt, "catalog: a free record that is not empty");
  }
  return static_cast<RecordKind>(kind);
}

}  // namespace firn::format
