// SPDX-License-Identifier: Apache-2.0
#include "format/lsm_catalog.h"

#include <algorithm>
#include <set>

#include "base/check.h"

namespace firn::format {

namespace {

constexpr size_t kFieldsMax = 4096;  // Of a table record.

void append_record(std::vector<std::byte>& to, uint16_t type, View content) {
  append_object(to, LsmRecordHead{.type = type, .bytes = static_cast<uint32_t>(content.size())});
  append_bytes(to, content);
}

std::vector<std::byte> record_of(const LsmTable& table) {
  LsmTableRecord record;
  record.epoch = table.id.epoch;
  record.number = table.id.number;
  record.run = table.run;
  record.bytes = table.bytes;
  record.entries = table.entries;
  record.removals = table.removals;
  record.tail_bytes = table.tail_bytes;
  record.first_bytes = static_cast<uint16_t>(table.first_key.size());
  record.last_bytes = static_cast<uint16_t>(table.last_key.size());
  record.level = static_cast<std::byte>(table.level);
  std::vector<std::byte> bytes;
  append_object(bytes, record);
  append_bytes(bytes, view_of_text(table.first_key));
  append_bytes(bytes, view_of_text(table.last_key));
  append_bytes(bytes, table.fields);
  return bytes;
}

// Everything about one catalog that a decoder may find wrong.
class Decoder {
 public:
  Decoder(View bytes, uint64_t version) : bytes_(bytes), version_(version) {}
  Result<LsmCatalog> decode();

 private:
  Error bad(const char* what) const {
    return fail(Errc::corrupt, "catalog {}: {}", version_, what);
  }
  Result<void> head();
  Result<void> record(uint16_t type, View content);
  Result<void> table(View content);
  Result<void> fields(View content) const;
  Result<void> whole();
  bool once(LsmRecord type) { return seen_.insert(type).second; }

  View bytes_;
  uint64_t version_;
  uint32_t records_ = 0;
  std::set<LsmRecord> seen_;
  LsmCatalog catalog_;
};

Result<void> Decoder::head() {
  if (bytes_.size() < sizeof(LsmCatalogHead) || bytes_.size() > kLsmCatalogBytesMax) {
    return bad("an impossible length");
  }
  const auto head = load<LsmCatalogHead>(bytes_);
  if (head.magic != kLsmCatalogMagic) return bad("is none");
  if (head.crc != crc32c(bytes_.subspan(12))) return bad("checksum");
  if (head.format != kLsmCatalogVersion || (head.incompat & ~kLsmCatalogKnownIncompat) != 0) {
    return fail(Errc::too_new, "catalog {}: format {}, features {:#x}", version_, head.format.get(),
                head.incompat.get());
  }
  if (head.version != version_ || version_ == 0) return bad("has another number inside");
  if (head.head_bytes != sizeof(head) || head.body_bytes != bytes_.size() - sizeof(head) ||
      !all_zero(head.reserved) || head.epoch == 0) {
    return bad("impossible head");
  }
  catalog_.tree = head.tree;
  catalog_.version = head.version;
  catalog_.epoch = head.epoch;
  catalog_.stamp = head.stamp;
  catalog_.written_ns = static_cast<int64_t>(head.written_ns.get());
  records_ = head.records;
  return ok;
}

Result<void> Decoder::fields(View content) const {
  LsmTaker taker(content);
  while (!taker.at_end()) {
    const uint16_t tag = taker.object<le16>();
    const uint16_t length = taker.object<le16>();
    taker.bytes(length);
    if (!taker.good() || tag == 0) return bad("a table with a bad field");
    if (tag % 2 != 0) {
      return fail(Errc::too_new, "catalog {}: a table has field {}, unknown to this version",
                  version_, tag);
    }
  }
  return ok;
}

Result<void> Decoder::table(View content) {
  LsmTaker taker(content);
  const auto record = taker.object<LsmTableRecord>();
  const View first = taker.bytes(record.first_bytes);
  const View last = taker.bytes(record.last_bytes);
  if (!taker.good() || taker.left() > kFieldsMax) return bad("a table record of a wrong length");
  LsmTable table;
  table.id = {record.epoch, record.number};
  table.run = record.run;
  table.level = static_cast<uint32_t>(record.level);
  table.bytes = record.bytes;
  table.entries = record.entries;
  table.removals = record.removals;
  table.tail_bytes = record.tail_bytes;
  table.first_key = text_view(first);
  table.last_key = text_view(last);
  const View rest = taker.bytes(taker.left());
  table.fields.assign(rest.begin(), rest.end());
  TRY(fields(rest));
  const size_t longest = std::max(first.size(), last.size());
  if (first.empty() || last.empty() || longest > kLsmKeyMax || table.first_key > table.last_key ||
      table.id.epoch == 0 || table.id.epoch > catalog_.epoch || table.id.number == 0 ||
      table.run == 0 || table.level >= kLsmLevelsMax || table.entries == 0 ||
      table.removals > table.entries || table.tail_bytes >= table.bytes ||
      !all_zero(record.reserved)) {
    return bad("an impossible table");
  }
  if (!catalog_.tables.empty()) {
    const LsmTable& before = catalog_.tables.back();
    if (before.run < table.run || before.level > table.level) return bad("runs out of order");
    if (before.run == table.run &&
        (before.level != table.level || before.last_key >= table.first_key)) {
      return bad("tables of a run overlap");
    }
  }
  if (catalog_.tables.size() == kLsmTablesMax) return bad("too many tables");
  catalog_.tables.push_back(std::move(table));
  return ok;
}

Result<void> Decoder::record(uint16_t type, View content) {
  switch (LsmRecord{type}) {
    case LsmRecord::table:
      return table(content);
    case LsmRecord::retired: {
      if (content.size() != sizeof(LsmRetiredRecord)) return bad("a retired record's length");
      if (catalog_.retired.size() == kLsmRetiredMax) return bad("too many retired tables");
      const auto record = load<LsmRetiredRecord>(content);
      catalog_.retired.push_back({{record.epoch, record.number},
                                  record.version,
                                  static_cast<int64_t>(record.since_ns.get())});
      return ok;
    }
    case LsmRecord::log: {
      if (content.size() != sizeof(LsmLogRecord) || !once(LsmRecord::log)) return bad("log record");
      const auto record = load<LsmLogRecord>(content);
      catalog_.log = record.log;
      catalog_.log_segment = record.segment;
      return ok;
    }
    case LsmRecord::floor: {
      if (content.size() != sizeof(LsmFloorRecord) || !once(LsmRecord::floor)) {
        return bad("floor record");
      }
      const auto record = load<LsmFloorRecord>(content);
      catalog_.floor = record.floor;
      catalog_.doomed = record.doomed;
      catalog_.doomed_since_ns = static_cast<int64_t>(record.since_ns.get());
      if (record.floor == 0 || record.floor > record.doomed || record.doomed > version_) {
        return bad("a floor above itself");
      }
      return ok;
    }
  }
  if (type == 0 || type % 2 != 0) {
    return fail(type == 0 ? Errc::corrupt : Errc::too_new,
                "catalog {}: has a record of type {}, unknown to this version", version_, type);
  }
  catalog_.others.push_back({type, {content.begin(), content.end()}});
  return ok;
}

// No table twice, and none that is both there and retired.
Result<void> Decoder::whole() {
  std::vector<LsmTableId> ids;
  for (const LsmTable& table : catalog_.tables) ids.push_back(table.id);
  for (const LsmRetired& retired : catalog_.retired) {
    const LsmTableId& id = retired.id;
    if (id.epoch == 0 || id.epoch > catalog_.epoch || id.number == 0 || retired.version == 0 ||
        retired.version > version_) {
      return bad("an impossible retired table");
    }
    ids.push_back(id);
  }
  std::ranges::sort(ids);
  if (std::ranges::adjacent_find(ids) != ids.end()) return bad("a table is named twice");
  return ok;
}

Result<LsmCatalog> Decoder::decode() {
  TRY(head());
  LsmTaker taker(bytes_.subspan(sizeof(LsmCatalogHead)));
  for (uint32_t i = 0; i < records_; ++i) {
    const auto record_head = taker.object<LsmRecordHead>();
    const View content = taker.bytes(record_head.bytes);
    if (!taker.good()) return bad("ends in a record");
    if (record_head.reserved != 0) return bad("reserved bytes are not zero");
    TRY(record(record_head.type, content));
  }
  if (!taker.at_end()) return bad("bytes behind its last record");
  TRY(whole());
  return std::move(catalog_);
}

}  // namespace

std::vector<std::byte> encode(const LsmCatalog& catalog) {
  std::vector<std::byte> bytes(sizeof(LsmCatalogHead));
  for (const LsmTable& table : catalog.tables) {
    append_record(bytes, static_cast<uint16_t>(LsmRecord::table), record_of(table));
  }
  for (const LsmRetired& retired : catalog.retired) {
    const LsmRetiredRecord record{retired.id.epoch, retired.id.number, retired.version,
                                  static_cast<uint64_t>(retired.since_ns)};
    append_record(bytes, static_cast<uint16_t>(LsmRecord::retired), view_of(record));
  }
  const LsmLogRecord log{catalog.log, catalog.log_segment};
  append_record(bytes, static_cast<uint16_t>(LsmRecord::log), view_of(log));
  const LsmFloorRecord floor{catalog.floor, catalog.doomed,
                             static_cast<uint64_t>(catalog.doomed_since_ns)};
  append_record(bytes, static_cast<uint16_t>(LsmRecord::floor), view_of(floor));
  for (const LsmUnknownRecord& other : catalog.others) {
    append_record(bytes, other.type, other.bytes);
  }
  LsmCatalogHead head;
  head.tree = catalog.tree;
  head.version = catalog.version;
  head.epoch = catalog.epoch;
  head.stamp = catalog.stamp;
  head.written_ns = static_cast<uint64_t>(catalog.written_ns);
  head.records = static_cast<uint32_t>(catalog.tables.size() + catalog.retired.size() + 2 +
                                       catalog.others.size());
  head.body_bytes = static_cast<uint32_t>(bytes.size() - sizeof(head));
  const auto place = [&] { std::ranges::copy(view_of(head), bytes.begin()); };
  place();
  head.crc = crc32c(View(bytes).subspan(12));
  place();
  return bytes;
}

Result<LsmCatalog> decode_lsm_catalog(View bytes, uint64_t version) {
  return Decoder(bytes, version).decode();
}

std::array<std::byte, 88> encode(LsmPointer pointer) {
  pointer.crc = crc32c(view_of(pointer).subspan(12));
  std::array<std::byte, 88> bytes{};
  std::ranges::copy(view_of(pointer), bytes.begin());
  return bytes;
}

Result<LsmPointer> decode_lsm_pointer(View bytes, const std::array<char, 8>& magic) {
  const std::string_view what = magic == kLsmNewestMagic ? "newest" : "epoch";
  if (bytes.size() != sizeof(LsmPointer)) {
    return fail(Errc::corrupt, "{}: {} bytes instead of {}", what, bytes.size(),
                sizeof(LsmPointer));
  }
  const auto pointer = load<LsmPointer>(bytes);
  if (pointer.magic != magic) return fail(Errc::corrupt, "{}: is none", what);
  if (pointer.crc != crc32c(bytes.subspan(12))) return fail(Errc::corrupt, "{}: checksum", what);
  if (pointer.format != kLsmCatalogVersion || pointer.incompat != 0) {
    return fail(Errc::too_new, "{}: format {}, features {:#x}", what, pointer.format.get(),
                pointer.incompat.get());
  }
  if (pointer.bytes != sizeof(LsmPointer) || !all_zero(pointer.reserved) || pointer.epoch == 0 ||
      (magic == kLsmNewestMagic && pointer.version == 0)) {
    return fail(Errc::corrupt, "{}: impossible fields", what);
  }
  return pointer;
}

}  // namespace firn::format
