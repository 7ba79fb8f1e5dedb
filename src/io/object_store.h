// SPDX-License-Identifier: Apache-2.0
// ObjectStore: a flat name space of immutable objects, as S3 has it, behind one interface. Three
// implementations: a directory, an S3 server, and a simulated one with faults and a ledger (sim/).
//
// Contract, for every implementation:
//  B1  An object is seen whole or not at all; a put that failed leaves the old one, the new one or
//      none, never a mixture.
//  B2  A put that returned is durable, and every get, head and list that begins later sees it. For
//      a key that is put or removed again there is an exception, which no client can heal: a try
//      that was given up may still arrive, after newer ones. So keys are best made once.
//  B3  A put with `once` makes the object or fails with Errc::exists; of several at the same time
//      exactly one makes it. After an error that says nothing of the outcome (io, timed_out) the
//      object may be there: the caller reads it and compares (lost acknowledgement).
//  B4  remove() of what is not there is done.
//  B5  Keys are made of [A-Za-z0-9._=/-], 1 to 512 bytes, without empty, "." or ".." parts. Another
//      key is the caller's error (CHECK).
//  B6  Transient refusals (503, dropped connections, deadlines) are tried again here, with growing
//      pauses, until `patience` is over; then Errc::timed_out. Others are told at once: not_found,
//      exists, invalid (no permission, bad credentials, clock skew: the sentence says which), io.
//  B7  What the store answers is hostile (P7): bounded and checked before it is believed.
//  B8  No object is another one's folder: beside "a/b" there is no "a". A directory refuses the
//      second of the two (Errc::invalid); other stores do not, so callers never ask.
//  B9  A read at or past the end gets 0 bytes. A read of a frozen or thawing object: Errc::busy.
//  B10 One shard uses a store; any number of its fibers at a time.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "io/io.h"

namespace firn {

inline constexpr size_t kObjectKeyBytesMax = 512;
// B5.
bool is_object_key(std::string_view key);
// "STANDARD", "GLACIER_IR": 1 to 32 of [A-Z0-9_].
bool is_storage_class(std::string_view name);
inline constexpr std::string_view kStandardClass = "STANDARD";

struct ObjectInfo {
  std::string key;
  uint64_t bytes = 0;
  int64_t modified_ns = 0;    // By the store's clock, since 1970.
  std::string storage_class;  // "STANDARD" when the store names none.
  // Whether a read works now: objects of deferred classes are thawed first.
  enum class State : uint8_t { ready, frozen, thawing } state = State::ready;
};

struct PutHow {
  bool once = false;
  std::string storage_class;  // Empty: the store's default.
};

// What a store is set to do on its own, as far as it tells: what `firn archive doctor` looks at.
struct StoreFacts {
  bool told = false;            // False: not that kind of store; nothing below means anything.
  bool encrypted_path = false;  // TLS.
  std::string versioning;       // "Enabled", "Suspended", or nothing.
  std::string lock_mode;    // Of new objects by default: "GOVERNANCE", "COMPLIANCE", or nothing.
  std::string lock_period;  // "30 days".
  bool lock_enabled = false;
  struct Rule {
    std::string id;
    bool expires = false;    // Deletes our objects ...
    std::string transition;  // ... or moves them to this class.
  };
  std::vector<Rule> rules;        // Those that are in force and touch our prefix.
  std::vector<std::string> mute;  // What could not be asked, and why.
};

// What a store did for us, for metrics and for those who pay per request.
struct ObjectCounters {
  uint64_t puts = 0, gets = 0, heads = 0, lists = 0, removes = 0, thaws = 0;
  uint64_t bytes_put = 0, bytes_got = 0;
  uint64_t retries = 0;
};

class ObjectStore {
 public:
  virtual ~ObjectStore() = default;
  ObjectStore(const ObjectStore&) = delete;
  ObjectStore& operator=(const ObjectStore&) = delete;

  // Where it is, as the user wrote it, without secrets: "s3://bucket/prefix", "file:///srv/bucket".
  virtual const std::string& name() const = 0;
  virtual Result<void> put(Io&, const std::string& key, Iovec body, const PutHow& how) = 0;
  virtual Result<ObjectInfo> head(Io&, const std::string& key) = 0;
  // Reads up to into.size() bytes at `at`; returns how many there were: fewer only at the end.
  virtual Result<size_t> get(Io&, const std::string& key, uint64_t at, Bytes into) = 0;
  // The first `count_max` keys after `after` that begin with `prefix`, in ascending order of bytes.
  virtual Result<std::vector<ObjectInfo>> list(Io&, const std::string& prefix,
                                               const std::string& after, size_t count_max) = 0;
  virtual Result<void> remove(Io&, const std::string& key) = 0;
  // Asks that a frozen object be readable for `days`. Done when it is asked; head() tells the rest.
  virtual Result<void> thaw(Io&, const std::string& key, uint32_t days) = 0;
  // The store's clock, from an answer of it.
  virtual Result<int64_t> wall_clock_ns(Io&) = 0;
  virtual Result<StoreFacts> facts(Io&) { return StoreFacts(); }

  const ObjectCounters& counters() const { return counters_; }

 protected:
  ObjectStore() = default;
  ObjectCounters counters_;
};

// A put with `once` whose lost acknowledgement is looked after: what is there is compared with
// `body`, and ours counts as made. So no two writers may put the same bytes under one key and both
// care who won: bodies name their writers.
Result<void> put_once(Io& io, ObjectStore& store, const std::string& key, View body,
                      const std::string& storage_class = {});
// The whole object, or Errc::corrupt when it has more than `bytes_max`.
Result<std::vector<std::byte>> get_whole(Io& io, ObjectStore& store, const std::string& key,
                                         size_t bytes_max);

}  // namespace firn
