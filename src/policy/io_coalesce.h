// SPDX-License-Identifier: Apache-2.0
// When guest requests are sent down one by one, and when they wait for each other and go together:
// newcomers are held only while others are in flight below, and a completion, a full queue or a
// deadline sends them as one batch, a vector of extents. One instance per disk, above the map.
// Source: US 9411623; the adaptive gate and the rules of overlap are ours.
//
//  C1  Liveness: something held => something is in flight below, or sending is due now.
//  C2  But for C4 nothing is held while fewer than `below_min` batches are in flight: never at
//      depth 1.
//  C3  Holding is not caching: a request is in one batch exactly once, and ends with it.
//  C4  Writes of one batch never overlap. One that overlaps a held one waits until that has ended.
//      (Nor do zeroes or discards. Reads may: they are answered from below only.)
//  C5  A batch has one kind (op and FUA), at most `batch_bytes_max` and `extents_max` extents, each
//      of at most `extent_bytes_max` and `segments_max`; a single request may be larger.
//  C6  In adaptive mode random and shallow loads are not held, but for one burst in `probe_period`
//      requests. Urgent requests are never held and go alone.
//  C7  At deadline(), `hold_max` after the first was held, all that C4 allows is due.
//
// On errors the caller sends each request of the batch again by itself: none fails for a neighbour.
// Nothing here allocates: requests and batches belong to the caller and are linked.
#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "base/list.h"
#include "base/time.h"
#include "base/units.h"

namespace firn::policy {

// A guest's request; lives from arrive() until its batch has completed. Derive from it.
struct CoalesceRequest {
  enum class Op : uint8_t { read, write, zero, discard };

  Op op = Op::read;
  bool fua = false;
  bool urgent = false;  // High priority, or not to be merged.
  Range range;
  uint32_t segments = 1;  // Pieces of memory.

  // The coalescer's own.
  CoalesceRequest* previous = nullptr;
  CoalesceRequest* next = nullptr;  // In a batch: the next by offset.
  uint64_t after_batch = 0;
  bool starts_extent = false;  // In a batch: not contiguous with the one before.
};

// What goes down together; lives from take() until complete().
struct CoalesceBatch {
  struct Extent {
    Range range;
    CoalesceRequest* first = nullptr;
    CoalesceRequest* end = nullptr;  // The first of the next extent; null after the last.
  };

  CoalesceRequest* first = nullptr;  // By offset; its fiber may lead.
  uint32_t requests = 0;
  uint32_t extents = 0;
  uint64_t bytes = 0;
  uint64_t id = 0;
  Links<CoalesceBatch> links;

  static Extent extent_at(CoalesceRequest* first);  // Start with `first`, go on with `end`.
};

class IoCoalesce {
 public:
  enum class Mode : uint8_t { off, always, adaptive };
  struct Limits {
    Mode mode = Mode::adaptive;
    uint32_t below_min = 1;  // Send when fewer batches than this are in flight.
    uint32_t capacity = 64;  // Held requests of one kind; the next one sends them all.
    uint64_t batch_bytes_max = 1 * kMiB;
    uint64_t extent_bytes_max = 512 * kKiB;
    uint32_t extents_max = 256;
    uint32_t segments_max = 1024;
    Duration hold_max = std::chrono::microseconds(500);
    uint32_t depth_min = 8;            // Adaptive: guests' requests not ended.
    uint32_t adjacent_permille = 100;  // Adaptive: requests that continue another; leaves at half.
    uint32_t probe_period = 4096;  // Adaptive: requests between two held bursts of a random load.
  };
  struct Counters {
    uint64_t requests = 0, batches = 0, extents = 0, held = 0;
    uint64_t by_depth = 0, by_full = 0, by_deadline = 0, by_drain = 0, probes = 0, overlaps = 0;
  };

  explicit IoCoalesce(Limits limits) : limits_(limits) {}
  IoCoalesce(const IoCoalesce&) = delete;
  IoCoalesce& operator=(const IoCoalesce&) = delete;
  void set_mode(Mode mode);  // Holds from the next request on; what is held becomes due.

  // A request came. True when something is due: call take() until it says no, at once or after the
  // rest of the same burst has arrived.
  bool arrive(Time now, CoalesceRequest& request);
  // The short way for one request when nothing is held and it would not be either: true with the
  // batch, which is to be sent. False: nothing was done, call arrive().
  bool pass(CoalesceRequest& request, CoalesceBatch& batch);
  // Fills an empty batch with what is to be sent next; false when nothing is due.
  bool take(CoalesceBatch& batch);
  // A batch has ended; `metadata` says that it changed the map. True when something is due: send
  // it before the guests hear of their completions, so that the device is not idle meanwhile.
  bool complete(CoalesceBatch& batch, bool metadata = false);
  bool tick(Time now);  // At deadline().
  std::optional<Time> deadline() const;
  bool drain();  // Before a flush, a change of guest memory, a snapshot: sends all that is held.

  uint32_t held() const { return held_; }
  uint32_t in_flight() const { return static_cast<uint32_t>(below_.count()); }
  bool idle() const { return held_ == 0 && below_.empty(); }
  bool holding() const;  // Whether the next request would be held if others were in flight.
  const Counters& counters() const { return counters_; }

 private:
  // Requests by offset. Those of one kind that must not overlap do not: see insert().
  struct Queue {
    CoalesceRequest* first = nullptr;
    CoalesceRequest* last = nullptr;
    uint32_t count = 0;
  };
  static constexpr size_t kKinds = 9;  // Urgent, then two of each op: plain, FUA.
  size_t kind_of(const CoalesceRequest& request) const;

  bool insert(CoalesceRequest& request);
  bool overlaps_later(const CoalesceRequest& request) const;
  void enqueue(CoalesceRequest& request);
  void promote_later();
  void cut(Queue& queue, CoalesceBatch& batch);
  bool give(CoalesceBatch& batch);
  void observe(const CoalesceRequest& request);
  void adjust_gate();

  static constexpr int32_t kOne = 1 << 16;  // 1.0 of the running means.

  Limits limits_;
  std::array<Queue, kKinds> queues_;
  Queue later_;  // In order of arrival: overlap something that is held or was (C4).
  List<CoalesceBatch, &CoalesceBatch::links> below_;  // By id.
  uint64_t batch_id_ = 0;
  uint32_t held_ = 0;
  uint32_t up_ = 0;  // Guests' requests not ended.
  bool due_ = false;
  Time held_since_{};

  // The gate.
  struct Recent {
    size_t kind = 0;
    uint64_t end = 0;
  };
  std::array<Recent, 8> recent_;
  size_t recent_next_ = 0;
  int32_t adjacent_ = 0;  // Of arrivals, those that continue a recent one.
  int32_t merged_ = 0;    // Of requests in held batches, those that joined another's extent.
  int32_t metadata_ = 0;  // Of batches, those that changed the map.
  uint32_t depth_sixteenths_ = 0;  // A peak of up_ that decays.
  uint32_t until_probe_ = 0;
  bool probing_ = false;
  bool worth_it_ = false;
  Counters counters_;
};

}  // namespace firn::policy
