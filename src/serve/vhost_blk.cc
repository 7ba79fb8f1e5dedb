// SPDX-License-Identifier: Apache-2.0
#include "serve/vhost_blk.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "base/shared.h"
#include "base/units.h"

namespace firn::serve {
namespace {

namespace virtio = wire::virtio;
using virtio::BlkStatus;
using virtio::BlkType;
using virtio::kSectorBytes;

constexpr uint32_t kSectorsOfStep = VhostBlk::kEffectBytesMax / kSectorBytes;

const std::byte* bytes_in(const ::iovec& slice) {
  return static_cast<const std::byte*>(slice.iov_base);
}

// Copies `count` bytes out of the front of the slices, and takes them off. False: there are less.
bool take_front(std::vector<::iovec>& slices, void* into, size_t count) {
  if (total_of(slices) < count) return false;
  auto* at = static_cast<std::byte*>(into);
  size_t used = 0;
  for (::iovec& slice : slices) {
    const size_t part = std::min(count, slice.iov_len);
    copy_once(at, bytes_in(slice), part);
    at += part;
    count -= part;
    slice.iov_base = static_cast<std::byte*>(slice.iov_base) + part;
    slice.iov_len -= part;
    if (slice.iov_len == 0) ++used;
    if (count == 0) break;
  }
  slices.erase(slices.begin(), slices.begin() + static_cast<ptrdiff_t>(used));
  return true;
}

// The header stands alone in the first slice, as a rule: then it is a copy of known size.
bool take_header(std::vector<::iovec>& slices, virtio::BlkHeader& into) {
  if (slices.empty() || slices[0].iov_len != sizeof(into)) {
    return take_front(slices, &into, sizeof(into));
  }
  into = copy_once<virtio::BlkHeader>(bytes_in(slices[0]));
  slices.erase(slices.begin());
  return true;
}

// The last byte of all, taken off: where the status goes. Null when there is none.
std::byte* take_last(std::vector<::iovec>& slices) {
  while (!slices.empty() && slices.back().iov_len == 0) slices.pop_back();
  if (slices.empty()) return nullptr;
  ::iovec& last = slices.back();
  std::byte* const place = static_cast<std::byte*>(last.iov_base) + --last.iov_len;
  if (last.iov_len == 0) slices.pop_back();
  return place;
}

VhostOp op_of(BlkType type) {
  switch (type) {
    case BlkType::in:
      return VhostOp::read;
    case BlkType::out:
      return VhostOp::write;
    case BlkType::flush:
      return VhostOp::flush;
    case BlkType::get_id:
      return VhostOp::get_id;
    case BlkType::discard:
      return VhostOp::discard;
    case BlkType::zero:
      return VhostOp::zero;
  }
  return VhostOp::unknown;
}

policy::CompletionPace::Op pace_of(VhostOp op) {
  using enum policy::CompletionPace::Op;
  if (op == VhostOp::write || op == VhostOp::zero) return write;
  if (op == VhostOp::flush) return flush;
  return op == VhostOp::discard ? discard : read;
}

constexpr std::array<std::string_view, kVhostOps> kOpNames{
    "read", "write", "flush", "get-id", "discard", "write-zeroes", "unknown"};

}  // namespace

VhostBlk::VhostBlk(Export exported, Log& log, VhostCounters& counters)
    : exported_(std::move(exported)), device_(*exported_.device), log_(log), counters_(counters) {}

// --- what it is

uint64_t VhostBlk::features() const {
  uint64_t features = virtio::kBlkSizeMax | virtio::kBlkSegmentMax | virtio::kBlkBlockSize |
                      virtio::kBlkTopology | virtio::kBlkMultiqueue | virtio::kBlkFlush |
                      virtio::kBlkConfigWriteCache;
  if (exported_.read_only) return features | virtio::kBlkReadOnly;
  return features | virtio::kBlkDiscard | virtio::kBlkWriteZeroes;
}

// Blocks of 512 bytes, because a file system made for those must mount; the size that we like best
// is a hint.
void VhostBlk::config(Bytes into) const {
  const Geometry geometry = device_.geometry();
  const uint32_t physical = std::max(geometry.optimal, kSectorBytes);
  virtio::BlkConfig config;
  config.capacity = geometry.bytes / kSectorBytes;
  config.size_max = kSegmentBytesMax;
  config.segment_max = kSegmentsMax;
  config.block_size = kSectorBytes;
  config.physical_block_exponent =
      static_cast<std::byte>(std::bit_width(physical / kSectorBytes) - 1);
  config.io_size_min = static_cast<uint16_t>(physical / kSectorBytes);
  config.io_size_optimal = physical / kSectorBytes;
  config.writeback = static_cast<std::byte>(write_back_ ? 1 : 0);
  config.queues = kQueuesMax;
  if (!exported_.read_only) {
    config.discard_sectors_max = config.zero_sectors_max = kSectorsOfStep;
    config.discard_segments_max = config.zero_segments_max = kEffectSegmentsMax;
    config.discard_alignment = std::max(geometry.discard, kSectorBytes) / kSectorBytes;
    config.zero_may_unmap = std::byte{1};
  }
  const View bytes = view_of(config);
  const size_t count = std::min(bytes.size(), into.size());
  std::memcpy(into.data(), bytes.data(), count);
  std::fill(into.begin() + static_cast<ptrdiff_t>(count), into.end(), std::byte{0});
}

Result<void> VhostBlk::set_config(uint32_t offset, View bytes) {
  if (offset != virtio::kBlkWritebackAt || bytes.size() != 1 || bytes[0] > std::byte{1}) {
    return fail(Errc::invalid, "the guest may set the write cache only, not {} bytes at {}",
                bytes.size(), offset);
  }
  write_back_ = bytes[0] == std::byte{1};
  return ok;
}

void VhostBlk::recall(const uint64_t* keepsake) {
  if (keepsake != nullptr) {
    write_back_ = *keepsake == 0;
  } else if ((features_ & virtio::kBlkConfigWriteCache) != 0) {
    write_back_ = false;  // The guest may have been told so: what it believes must be true.
  }
}

bool VhostBlk::write_through() const {
  if ((features_ & virtio::kBlkConfigWriteCache) != 0) return !write_back_;
  return (features_ & virtio::kBlkFlush) == 0;
}

// --- requests

Served VhostBlk::serve(Io& io, Chain& chain) {
  const uint64_t room = total_of(chain.writable);
  std::byte* const place = take_last(chain.writable);
  VhostOp op = VhostOp::unknown;
  Status status = Status::io_error;
  Header header;
  if (place != nullptr && take_header(chain.readable, header)) {
    status = execute(io, header, chain, op);
  }
  ++counters_.requests[static_cast<size_t>(op)];
  if (status != Status::good) ++counters_.errors[static_cast<size_t>(op)];
  if (place == nullptr) return {.urgent = true};
  store_relaxed<uint8_t>(place, static_cast<uint8_t>(status));
  return {.written = static_cast<uint32_t>(std::min<uint64_t>(room, UINT32_MAX)),
          .op = pace_of(op),
          .bytes = op == VhostOp::read ? room : total_of(chain.readable),
          .urgent = status != Status::good || (op != VhostOp::read && op != VhostOp::write) ||
                    (op == VhostOp::write && write_through())};
}

VhostBlk::Status VhostBlk::execute(Io& io, const Header& header, Chain& chain, VhostOp& op) {
  op = op_of(static_cast<BlkType>(header.type.get()));
  const bool changes = op == VhostOp::write || op == VhostOp::discard || op == VhostOp::zero;
  if (changes && exported_.read_only) return Status::io_error;
  switch (op) {
    case VhostOp::read:
      return transfer(io, header, chain.writable, false);
    case VhostOp::write:
      return transfer(io, header, chain.readable, true);
    case VhostOp::flush:
      return outcome(op, {}, device_.flush(io));
    case VhostOp::get_id:
      return give_id(chain);
    case VhostOp::discard:
    case VhostOp::zero:
      return effect(io, chain, op == VhostOp::discard);
    case VhostOp::unknown:
      break;
  }
  return Status::unsupported;
}

VhostBlk::Status VhostBlk::transfer(Io& io, const Header& header, Iovec slices, bool write) {
  const uint64_t bytes = total_of(slices);
  const uint64_t sector = header.sector;
  if (bytes % kSectorBytes != 0 || bytes > kTransferMax || sector > INT64_MAX / kSectorBytes) {
    return Status::io_error;
  }
  const Range range{sector * kSectorBytes, bytes};
  if (!range.within(device_.geometry().bytes)) return Status::io_error;
  if (bytes == 0) return Status::good;
  (write ? counters_.bytes_written : counters_.bytes_read) += bytes;
  return write ? outcome(VhostOp::write, range,
                         device_.write(io, range, slices, {.fua = write_through()}))
               : outcome(VhostOp::read, range, device_.read(io, range, slices));
}

VhostBlk::Status VhostBlk::effect(Io& io, Chain& chain, bool discard) {
  std::array<virtio::BlkSegment, kEffectSegmentsMax> segments;
  const uint64_t bytes = total_of(chain.readable);
  const size_t count = bytes / sizeof(virtio::BlkSegment);
  if (count == 0 || bytes % sizeof(virtio::BlkSegment) != 0 || count > segments.size()) {
    return Status::io_error;
  }
  if (!take_front(chain.readable, segments.data(), bytes)) return Status::io_error;
  const uint64_t size = device_.geometry().bytes;
  for (size_t i = 0; i < count; ++i) {  // All of them before any is done.
    const uint32_t known = discard ? 0 : virtio::kBlkUnmap;
    if ((segments[i].flags & ~known) != 0) return Status::unsupported;
    const Range sectors{segments[i].sector, segments[i].sectors};
    if (!sectors.within(size / kSectorBytes)) return Status::io_error;
  }
  const VhostOp op = discard ? VhostOp::discard : VhostOp::zero;
  for (size_t i = 0; i < count; ++i) {
    const uint64_t end = (segments[i].sector + segments[i].sectors) * kSectorBytes;
    for (uint64_t at = segments[i].sector * kSectorBytes; at < end;) {
      const Range range{at, std::min(end - at, kEffectBytesMax)};
      const bool keeps = (segments[i].flags & virtio::kBlkUnmap) == 0;
      const Result<void> done =
          discard ? device_.discard(io, range)
                  : device_.zero(io, range, {.fua = write_through(), .keep_space = keeps});
      if (!done) return outcome(op, range, done);
      at = range.end();
    }
  }
  if (discard && write_through()) return outcome(op, {}, device_.flush(io));
  return Status::good;
}

VhostBlk::Status VhostBlk::give_id(Chain& chain) {
  std::array<char, virtio::kBlkIdBytes> id{};
  std::copy_n(exported_.name.begin(), std::min(exported_.name.size(), id.size()), id.begin());
  size_t at = 0;
  for (const ::iovec& slice : chain.writable) {
    const size_t part = std::min(id.size() - at, slice.iov_len);
    std::memcpy(slice.iov_base, id.data() + at, part);
    at += part;
  }
  return at == id.size() ? Status::good : Status::io_error;
}

// The guest learns that it failed; the sentence goes to the log: the first, second, fourth, eighth
// ... of a connection.
VhostBlk::Status VhostBlk::outcome(VhostOp op, Range range, const Result<void>& result) {
  if (result) return Status::good;
  ++device_errors_;
  if ((device_errors_ & (device_errors_ - 1)) == 0) {
    log_.line(Severity::error, "request failed", printable(exported_.name),
              fmt::format("{} of {} bytes at {} for a guest (error {} of this connection): {}",
                          kOpNames[static_cast<size_t>(op)], range.length, range.at, device_errors_,
                          text_of(result.error())));
  }
  return result.error().code == Errc::unsupported ? Status::unsupported : Status::io_error;
}

}  // namespace firn::serve
