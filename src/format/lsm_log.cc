// SPDX-License-Identifier: Apache-2.0
#include "format/lsm_log.h"

#include <algorithm>

#include "base/check.h"

namespace firn::format {

namespace {

constexpr auto kPut = std::byte{1};
constexpr auto kRemoval = std::byte{2};
constexpr auto kLink = std::byte{3};

uint32_t record_crc(const LsmLogHead& head, uint64_t at, View rest) {
  struct Place {
    std::array<std::byte, 16> log;
    le64 segment, at;
  };
  const Place place{head.log, head.segment, at};
  return crc32c(rest, crc32c(view_of(place)));
}

void append_op(std::vector<std::byte>& to, std::byte kind, View key, View value) {
  CHECK(!key.empty() && key.size() <= kLsmKeyMax, "a key of {} bytes", key.size());
  CHECK(value.size() <= kLsmValueMax, "a value of {} bytes", value.size());
  to.push_back(kind);
  append_object(to, le16(static_cast<uint16_t>(key.size())));
  append_object(to, le32(static_cast<uint32_t>(value.size())));
  append_bytes(to, key);
  append_bytes(to, value);
}

}  // namespace

std::array<std::byte, 80> encode(LsmLogHead head) {
  head.crc = crc32c(view_of(head).subspan(12));
  std::array<std::byte, 80> bytes{};
  std::ranges::copy(view_of(head), bytes.begin());
  return bytes;
}

Result<LsmLogHead> decode_lsm_log_head(View bytes) {
  if (bytes.size() < sizeof(LsmLogHead)) return fail(Errc::not_found, "log: no segment");
  const auto head = load<LsmLogHead>(bytes);
  if (all_zero(bytes.first(sizeof(head)))) return fail(Errc::not_found, "log: no segment");
  if (head.magic != kLsmLogMagic) return fail(Errc::corrupt, "log: a segment without a head");
  if (head.crc != crc32c(view_of(head).subspan(12))) {
    return fail(Errc::corrupt, "log: checksum of a segment's head");
  }
  if (head.version != kLsmLogVersion || head.incompat != 0) {
    return fail(Errc::too_new, "log: version {}, features {:#x}", head.version.get(),
                head.incompat.get());
  }
  if (head.head_bytes != sizeof(head) || !all_zero(head.reserved) || head.segment == 0) {
    return fail(Errc::corrupt, "log: impossible head of a segment");
  }
  return head;
}

void append_lsm_record(std::vector<std::byte>& to, const LsmLogHead& head, uint64_t at,
                       uint64_t number, View batch) {
  CHECK(!batch.empty() && batch.size() <= kLsmLogRecordMax);
  const size_t begin = to.size();
  LsmLogRecordHead record;
  record.bytes = static_cast<uint32_t>(batch.size());
  record.number = number;
  append_object(to, record);
  append_bytes(to, batch);
  record.crc = record_crc(head, at, View(to).subspan(begin + 4));
  std::ranges::copy(view_of(record), to.begin() + static_cast<ptrdiff_t>(begin));
}

View decode_lsm_record(View bytes, const LsmLogHead& head, uint64_t at, uint64_t number) {
  if (bytes.size() < sizeof(LsmLogRecordHead)) return {};
  const auto record = load<LsmLogRecordHead>(bytes);
  if (record.bytes == 0 || record.bytes > kLsmLogRecordMax || record.number != number ||
      record.bytes > bytes.size() - sizeof(record)) {
    return {};
  }
  const View whole = bytes.first(sizeof(record) + record.bytes);
  if (record_crc(head, at, whole.subspan(4)) != record.crc) return {};
  return whole.subspan(sizeof(record));
}

void append_lsm_put(std::vector<std::byte>& to, View key, View value) {
  append_op(to, kPut, key, value);
}
void append_lsm_removal(std::vector<std::byte>& to, View key) { append_op(to, kRemoval, key, {}); }

void append_lsm_link(std::vector<std::byte>& to, uint64_t records) {
  to.push_back(kLink);
  append_object(to, le64(records));
}

std::optional<uint64_t> decode_lsm_link(View batch) {
  if (batch.size() != 9 || batch[0] != kLink) return std::nullopt;
  return load<le64>(batch.subspan(1));
}

Result<bool> LsmBatchReader::next() {
  if (taker_.at_end()) return false;
  const auto kind = taker_.object<std::byte>();
  const uint16_t key_bytes = taker_.object<le16>();
  const uint32_t value_bytes = taker_.object<le32>();
  const View key = taker_.bytes(key_bytes);
  const View value = taker_.bytes(value_bytes);
  entry_ = {text_view(key), text_view(value), kind == kRemoval};
  if (!taker_.good() || (kind != kPut && kind != kRemoval) || key.empty() ||
      key.size() > kLsmKeyMax || value.size() > kLsmValueMax ||
      (entry_.removal && !value.empty())) {
    return fail(Errc::corrupt, "log: a batch with a bad entry");
  }
  return true;
}

}  // namespace firn::format
