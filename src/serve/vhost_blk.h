// SPDX-License-Identifier: Apache-2.0
// VhostBlk: a disk as a virtio block device.
//
// Contract:
//  B1  Data goes between the guest's buffers and the device without a copy of ours.
//  B2  What the guest believes about durability is true: write-back with FLUSH; write-through when
//      the guest asks for that, or cannot flush, or when a predecessor's mode is not known.
//  B3  Requests that are malformed or out of range are answered with an error, as far as they have
//      room for an answer, and touch nothing.
//  B4  Large effects (discard, zeroes) run in steps of 1 GiB.
#pragma once

#include <memory>
#include <string>

#include "serve/exports.h"
#include "serve/log.h"
#include "serve/vhost_counters.h"
#include "serve/vhost_device.h"
#include "wire/virtio.h"

namespace firn::serve {

class VhostBlk final : public VhostDevice {
 public:
  static constexpr uint16_t kQueuesMax = 64;
  static constexpr uint32_t kSegmentsMax = 126;  // With header and status a ring of 128 is full.
  static constexpr uint32_t kSegmentBytesMax = 1 << 20;
  static constexpr uint64_t kTransferMax = 128 << 20;
  static constexpr uint32_t kEffectSegmentsMax = 64;
  static constexpr uint64_t kEffectBytesMax = 1 << 30;

  VhostBlk(Export exported, Log& log, VhostCounters& counters);

  uint64_t features() const override;
  void accept(uint64_t features) override { features_ = features; }
  uint16_t queues_max() const override { return kQueuesMax; }
  void config(Bytes into) const override;
  Result<void> set_config(uint32_t offset, View bytes) override;
  uint64_t config_mark() const override { return device_.geometry().bytes; }
  uint64_t keepsake() const override { return write_back_ ? 0 : 1; }
  void recall(const uint64_t* keepsake) override;
  const CompletionRules* completion() const override { return exported_.completion.get(); }
  Served serve(Io& io, Chain& chain) override;

 private:
  using Status = wire::virtio::BlkStatus;
  using Header = wire::virtio::BlkHeader;

  Status execute(Io& io, const Header& header, Chain& chain, VhostOp& op);
  Status transfer(Io& io, const Header& header, Iovec slices, bool write);
  Status effect(Io& io, Chain& chain, bool discard);
  Status give_id(Chain& chain);
  Status outcome(VhostOp op, Range range, const Result<void>& result);
  bool write_through() const;

  Export exported_;
  BlockDevice& device_;
  Log& log_;
  VhostCounters& counters_;
  uint64_t features_ = 0;
  bool write_back_ = true;  // As the guest set it, or found it.
  uint64_t device_errors_ = 0;
};

}  // namespace firn::serve
