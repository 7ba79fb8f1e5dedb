// SPDX-License-Identifier: Apache-2.0
// VhostDevice: what a kind of device is, beneath the part of vhost-user that all kinds share.
#pragma once

#include <cstdint>

#include "base/bytes.h"
#include "base/result.h"
#include "io/io.h"
#include "serve/completion.h"
#include "serve/virtqueue.h"

namespace firn::serve {

// What became of a request.
struct Served {
  uint32_t written = 0;  // How many bytes of the writable part it has filled.
  policy::CompletionPace::Op op = policy::CompletionPace::Op::read;
  uint64_t bytes = 0;
  bool urgent = false;  // Somebody waits for just this one: a flush, an error.
};

class VhostDevice {
 public:
  virtual ~VhostDevice() = default;

  // The kind's own bits; those of rings and of the transport are the session's.
  virtual uint64_t features() const = 0;
  virtual void accept(uint64_t features) = 0;
  virtual uint16_t queues_max() const = 0;

  // The configuration space as it is now, from its beginning; zeroes behind it.
  virtual void config(Bytes into) const = 0;
  virtual Result<void> set_config(uint32_t offset, View bytes) = 0;
  // Changes whenever the guest should look at the configuration again.
  virtual uint64_t config_mark() const = 0;

  // What the guest has set and nobody would tell a successor: kept where the requests in flight
  // are. recall() with nothing: the predecessor's is not known.
  virtual uint64_t keepsake() const = 0;
  virtual void recall(const uint64_t* keepsake) = 0;

  // How the guest hears of what has ended; null: at once. Stays while the device does.
  virtual const CompletionRules* completion() const { return nullptr; }

  // One request. May wait.
  virtual Served serve(Io& io, Chain& chain) = 0;

 protected:
  VhostDevice() = default;
  VhostDevice(const VhostDevice&) = delete;
  VhostDevice& operator=(const VhostDevice&) = delete;
};

}  // namespace firn::serve
