// SPDX-License-Identifier: Apache-2.0
// A bucket in memory for the tests of the tree: what it was asked, in order, and what goes wrong.
// Tests only.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/prng.h"
#include "io/object_store.h"

namespace firn::store {

class TestStore final : public ObjectStore {
 public:
  using Body = std::shared_ptr<const std::vector<std::byte>>;
  using Objects = std::map<std::string, Body>;
  // One change of the bucket; no body: removed.
  struct Mutation {
    std::string key;
    Body body;
  };

  TestStore() = default;
  explicit TestStore(Objects those) : objects(std::move(those)) {}

  // --- what a test sets
  Objects objects;
  Duration put_time{};
  Duration other_time{};
  bool down = false;             // Every request fails, with timed_out.
  uint32_t lose_ack_one_in = 0;  // Of puts: done, and told as an error.
  uint32_t fail_one_in = 0;      // Of all: not done.
  Prng prng{1};
  std::function<void()> changed;                       // After each mutation.
  std::function<void(const std::string&)> before_put;  // May wait: a writer that stalls.

  // --- what it may look at
  std::vector<Mutation> mutations;
  std::vector<std::string> requests;  // "put KEY", "get KEY", "head KEY", "list PREFIX", ...
  std::vector<std::string> overwritten;
  uint64_t count(const std::string& begin) const {
    uint64_t found = 0;
    for (const std::string& request : requests) found += request.starts_with(begin) ? 1 : 0;
    return found;
  }

  const std::string& name() const override { return name_; }

  Result<void> put(Io& io, const std::string& key, Iovec body, const PutHow& how) override {
    ++counters_.puts;
    if (before_put) before_put(key);
    // S3 takes the body as it is when the request is sent.
    std::vector<std::byte> bytes;
    for (const ::iovec& slice : body) {
      const View part(static_cast<const std::byte*>(slice.iov_base), slice.iov_len);
      bytes.insert(bytes.end(), part.begin(), part.end());
    }
    Result<void> ready = ask(io, "put " + key, put_time);
    if (!ready) return ready;
    if (how.once && objects.contains(key)) return fail(Errc::exists, "{}: is there", key);
    if (objects.contains(key)) overwritten.push_back(key);
    change(key, std::make_shared<const std::vector<std::byte>>(std::move(bytes)));
    if (lose_ack_one_in != 0 && prng_one_in(lose_ack_one_in)) {
      return fail(Errc::io, "{}: connection lost behind the request", key);
    }
    return ok;
  }
  Result<ObjectInfo> head(Io& io, const std::string& key) override {
    ++counters_.heads;
    Result<void> ready = ask(io, "head " + key, other_time);
    if (!ready) return ready.error();
    const auto found = objects.find(key);
    if (found == objects.end()) return fail(Errc::not_found, "{}: is not there", key);
    return ObjectInfo{.key = key, .bytes = found->second->size()};
  }
  Result<size_t> get(Io& io, const std::string& key, uint64_t at, Bytes into) override {
    ++counters_.gets;
    Result<void> ready = ask(io, "get " + key, other_time);
    if (!ready) return ready.error();
    const auto found = objects.find(key);
    if (found == objects.end()) return fail(Errc::not_found, "{}: is not there", key);
    const View body(*found->second);
    if (at >= body.size()) return size_t{0};
    const View part = body.subspan(at, std::min(into.size(), body.size() - at));
    std::ranges::copy(part, into.begin());
    return part.size();
  }
  Result<std::vector<ObjectInfo>> list(Io& io, const std::string& prefix, const std::string& after,
                                       size_t count_max) override {
    ++counters_.lists;
    Result<void> ready = ask(io, "list " + prefix, other_time);
    if (!ready) return ready.error();
    std::vector<ObjectInfo> found;
    for (auto at = objects.upper_bound(std::max(after, prefix));
         at != objects.end() && found.size() < count_max && at->first.starts_with(prefix); ++at) {
      found.push_back({.key = at->first, .bytes = at->second->size()});
    }
    return found;
  }
  Result<void> remove(Io& io, const std::string& key) override {
    ++counters_.removes;
    Result<void> ready = ask(io, "remove " + key, other_time);
    if (!ready) return ready;
    if (objects.contains(key)) change(key, nullptr);
    return ok;
  }
  Result<void> thaw(Io&, const std::string&, uint32_t) override { return ok; }
  Result<int64_t> wall_clock_ns(Io& io) override {
    Result<void> ready = ask(io, "clock", other_time);
    if (!ready) return ready.error();
    return io.wall_clock_ns();
  }

 private:
  bool prng_one_in(uint32_t n) { return prng.one_in(n); }
  Result<void> ask(Io& io, const std::string& what, Duration time) {
    requests.push_back(what);
    if (time > Duration{}) io.sleep(time);
    if (down) return fail(Errc::timed_out, "{}: the store is down", what);
    if (fail_one_in != 0 && prng.one_in(fail_one_in)) return fail(Errc::io, "{}: failed", what);
    return ok;
  }
  void change(const std::string& key, Body body) {
    if (body) {
      objects[key] = body;
    } else {
      objects.erase(key);
    }
    mutations.push_back({key, std::move(body)});
    if (changed) changed();
  }
  std::string name_ = "test://bucket";
};

}  // namespace firn::store
