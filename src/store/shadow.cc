// SPDX-License-Identifier: Apache-2.0
// Notes on the design
//
// Only this process and, after its end, the next one touch the memory: no other thread looks on.
// What must be right is that a kill between any two stores leaves something readable. So a span
// counts from the store of its first 8 bytes, which is the last of it; a half from that of its id;
// the header from that of its magic.
#include "store/shadow.h"

#include "base/log.h"
#include "base/shared.h"

namespace firn::store {

using format::kShadowHalfBytes;
using format::kShadowHeaderBytes;
using format::ShadowHalf;
using format::ShadowHeader;
using format::ShadowSpan;

Result<std::unique_ptr<Shadow>> Shadow::open(Io& io, const std::string& path,
                                             const format::Uuid& uuid) {
  auto memory = TRY(io.map_lasting(path, format::kShadowBytes));
  return std::unique_ptr<Shadow>(new Shadow(std::move(memory), uuid, io.boot()));
}

Bytes Shadow::half(uint64_t id) const {
  return memory_->bytes().subspan(kShadowHeaderBytes + id % 2 * kShadowHalfBytes, kShadowHalfBytes);
}

Shadow::Left Shadow::left(uint64_t epoch, uint64_t last) const {
  const auto header = format::decode_shadow_header(memory_->bytes());
  Left left;
  if (!header || header->uuid != uuid_ || header->boot != format::shadow_boot(boot_) ||
      header->half_bytes != kShadowHalfBytes) {
    return left;
  }
  left.after = last;
  if (header->carried == epoch && last == 0) {
    left.after = header->carried_after;  // The process that took them over was killed too.
  } else if (header->epoch != epoch) {
    return left;
  }
  for (uint64_t id = left.after + 1; id <= left.after + 2; ++id) {
    const auto head = load<ShadowHalf>(half(id));
    if (head.id != id) break;
    const std::vector<std::byte> records = format::read_half(uuid_, id, half(id));
    left.records.insert(left.records.end(), records.begin(), records.end());
    if (head.closed != 1) break;
  }
  return left;
}

void Shadow::carry(uint64_t epoch, uint64_t after) {
  std::byte* const header = memory_->bytes().data();
  store_release<uint64_t>(header + offsetof(ShadowHeader, carried_after), after);
  store_release<uint64_t>(header + offsetof(ShadowHeader, carried), epoch);
}

void Shadow::start(uint64_t epoch, uint64_t id) {
  std::byte* const header = memory_->bytes().data();
  store_release<uint64_t>(header, 0);  // The magic: void until all of it is there.
  for (const uint64_t each : {id, id + 1}) store_release<uint64_t>(half(each).data(), 0);
  ShadowHeader fresh;
  fresh.uuid = uuid_;
  fresh.epoch = epoch;
  fresh.half_bytes = kShadowHalfBytes;
  fresh.boot = format::shadow_boot(boot_);
  const auto bytes = format::encode(fresh);
  std::memcpy(header + 8, bytes.data() + 8, bytes.size() - 8);
  store_release<uint64_t>(header, load<le64>(bytes));
  before_whole_ = true;
  begin(id);
}

void Shadow::begin(uint64_t id) {
  id_ = id;
  whole_ = !memory_->broken();
  const Bytes here = half(id);
  store_release<uint64_t>(here.data(), 0);
  store_release<uint64_t>(here.data() + offsetof(ShadowHalf, closed), 0);
  at_ = sizeof(ShadowHalf);
  end_ = at_ + sizeof(ShadowSpan);
  store_release<uint64_t>(here.data() + at_, 0);
  store_release<uint64_t>(here.data(), id);
}

void Shadow::note(format::PageNo page, bool fresh, size_t first, View words) {
  if (!whole_) return;
  const size_t runs = words.empty() ? 0 : 1;
  const size_t bytes = sizeof(format::PageRecord) + runs * sizeof(format::WordRun) + words.size();
  // Room for the head of the span behind it.
  if (end_ + bytes + sizeof(ShadowSpan) > kShadowHalfBytes) {
    whole_ = false;
    return;
  }
  std::byte* to = half(id_).data() + end_;
  format::PageRecord record;
  record.page = page;
  record.runs = static_cast<uint16_t>(runs);
  record.flags = fresh ? format::kRecordFresh : uint16_t{0};
  std::memcpy(to, &record, sizeof record);
  if (runs == 1) {
    const format::WordRun run{
        static_cast<uint16_t>(first), static_cast<uint16_t>(words.size() / 8), {}};
    std::memcpy(to + sizeof record, &run, sizeof run);
    std::memcpy(to + sizeof record + sizeof run, words.data(), words.size());
  }
  end_ += bytes;
}

bool Shadow::seal() {
  if (!before_whole_ || !whole_) return false;
  const size_t from = at_ + sizeof(ShadowSpan);
  if (end_ == from) return true;
  const Bytes here = half(id_);
  ShadowSpan span;
  span.bytes = static_cast<uint32_t>(end_ - from);
  span.crc = format::span_crc(uuid_, id_, at_, here.subspan(from, end_ - from));
  store_release<uint64_t>(here.data() + end_, 0);
  store_release<uint64_t>(here.data() + at_, load<le64>(view_of(span)));
  sealed_bytes_ += end_ - from;
  at_ = end_;
  end_ += sizeof(ShadowSpan);
  whole_ = !memory_->broken();
  return whole_;
}

void Shadow::taken(uint64_t id) {
  CHECK(id == id_, "commit {} takes what is commit {}'s", id, id_);
  before_whole_ = whole_ && seal();
  if (before_whole_) {
    store_release<uint64_t>(half(id).data() + offsetof(ShadowHalf, closed), 1);
  }
  begin(id + 1);
}

}  // namespace firn::store
