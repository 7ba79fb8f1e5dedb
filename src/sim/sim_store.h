// SPDX-License-Identifier: Apache-2.0
// SimBucket: a bucket as a function of what was asked of it. SimStore: one client of it, whose
// requests are late, lost, refused, cut short or answered with a lie, as a seed draws them.
//
// Contract, beside ObjectStore's:
//  Z1  The same seed, settings and calls give the same fates. Nothing sleeps that has no latency,
//      so that a quiet store works under every Io.
//  Z2  A request takes effect in one moment, or never; also when its answer is lost.
//  Z3  Buckets are copied as values, cheaply: a copy in `before` is what a crash there leaves.
//  Z4  After the kill every call fails with Errc::cancelled, and nothing of this client reaches the
//      bucket unless land() is called. Other clients go on.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/prng.h"
#include "io/object_store.h"
#include "sim/ledger.h"

namespace firn::sim {

struct SimBucket {
  struct Object {
    std::shared_ptr<const std::vector<std::byte>> body;
    std::string storage_class;
    int64_t born_ns = 0;
    int64_t thawed_ns = INT64_MAX;  // When it is, or will be, readable ...
    int64_t frozen_ns = INT64_MAX;  // ... and until when.
    ObjectInfo::State state(int64_t now_ns, bool deferred) const;
  };
  std::map<std::string, Object> objects;
  Ledger ledger;
  int64_t ahead_ns = 0;  // Its clock against the host's: skew, and months that pass at once.

  // --- what happens to buckets
  void pass(Duration time) { ahead_ns += time.count(); }
  void flip_bit(const std::string& key, uint64_t bit);
  void cut(const std::string& key, uint64_t bytes);  // Down to so many.
  uint64_t bytes() const;
};

struct SimStoreFaults {
  Duration latency_min{}, latency_max{};
  Duration put_latency{};  // Besides.
  // One request in so many; 0: none.
  uint32_t lost_one_in = 0;       // The answer is lost after the effect.
  uint32_t dropped_one_in = 0;    // The connection ends before it.
  uint32_t throttled_one_in = 0;  // 503.
  uint32_t torn_one_in = 0;       // A body, of either direction, is cut short.
  uint32_t stalled_one_in = 0;    // No answer until the deadline; with or without effect.
  // A put or remove without an answer, whose effect comes during some later request: after its own
  // second try, or after what others did since. B2 does not hold for a key that is put twice.
  uint32_t late_one_in = 0;
  Time throttled_until{};  // 503 to all until then.
  // A store that lies.
  bool ignores_once = false;
  bool ignores_classes = false;
  bool ignores_prefixes = false;
  bool lists_late = false;   // The last key made is not listed yet.
  bool refuses_all = false;  // No permission.
};

struct SimRequest {
  uint64_t number = 0;  // From 1, tries counted one by one.
  RequestKind kind = RequestKind::put;
  std::string key;
};

class SimStore final : public ObjectStore {
 public:
  struct Settings {
    uint64_t seed = 1;
    std::string name = "sim://bucket";
    Duration patience = std::chrono::seconds(60);  // B6.
    Duration deadline = std::chrono::seconds(10);  // Of one request.
    SimStoreFaults faults;
  };
  SimStore(SimBucket& bucket, Settings settings);
  explicit SimStore(SimBucket& bucket) : SimStore(bucket, Settings()) {}

  SimBucket& bucket() { return bucket_; }
  SimStoreFaults& faults() { return settings_.faults; }
  uint64_t requests() const { return requests_; }
  // Called before each request goes out; may copy the bucket, or change it.
  std::function<void(const SimRequest&)> before;
  // The Nth request from now on fails for good, with this code; `any` kind or one.
  void fail_nth(uint64_t nth, std::optional<RequestKind> kind = {}, Errc code = Errc::io);
  bool has_failed() const { return failed_; }  // False: the run has fewer requests than N.
  // The client dies in its Nth request from now on, which takes effect or not.
  void kill_at(uint64_t nth, bool after_effect);
  bool killed() const { return killed_; }
  // What is late arrives now.
  void land();

  const std::string& name() const override { return settings_.name; }
  Result<void> put(Io& io, const std::string& key, Iovec body, const PutHow& how) override;
  Result<ObjectInfo> head(Io& io, const std::string& key) override;
  Result<size_t> get(Io& io, const std::string& key, uint64_t at, Bytes into) override;
  Result<std::vector<ObjectInfo>> list(Io& io, const std::string& prefix, const std::string& after,
                                       size_t count_max) override;
  Result<void> remove(Io& io, const std::string& key) override;
  Result<void> thaw(Io& io, const std::string& key, uint32_t days) override;
  Result<int64_t> wall_clock_ns(Io& io) override;

 private:
  enum class Fate : uint8_t { good, throttled, dropped, lost, torn, stalled, late };
  enum class Outcome : uint8_t { answered, refused, unknown };
  struct Call {
    RequestKind kind;
    const std::string& key;
    bool has_body;
    std::function<Result<void>()> effect;  // With `changes`, it owns what it needs.
    bool changes = false;
    bool unknown = false;  // An earlier try may have had its effect.
  };
  Result<void> ask(Io& io, Call& call);
  Result<Outcome> once(Io& io, Call& call);
  Fate draw(Io& io, const Call& call);
  void pause(Io& io, RequestKind kind);
  Result<void> struck(const Call& call);
  Error dead(const Call& call) const;
  int64_t now(Io& io) const { return io.wall_clock_ns() + bucket_.ahead_ns; }
  ObjectInfo info_of(Io& io, const std::string& key, const SimBucket::Object& object) const;
  Result<SimBucket::Object*> find(const std::string& key);
  void bury(Io& io, std::map<std::string, SimBucket::Object>::iterator found);
  bool one_in(uint32_t n) { return n > 0 && prng_.one_in(n); }

  SimBucket& bucket_;
  Settings settings_;
  Prng prng_;
  uint64_t requests_ = 0;
  uint64_t fail_nth_ = 0;
  std::optional<RequestKind> fail_kind_;
  Errc fail_code_ = Errc::io;
  bool failed_ = false;
  uint64_t kill_at_ = 0;
  bool kill_after_ = false;
  bool killed_ = false;
  std::string last_made_;
  std::vector<std::function<Result<void>()>> late_;
};

}  // namespace firn::sim
