// SPDX-License-Identifier: Apache-2.0
// What writers of the tree in the bucket feel while a generation is moved to a store that takes
// 500 ms for each PUT, and how long they are held for a clone. Prints JSON lines; bench/run_lsm
// makes the table.
//
//   lsmload DIRECTORY [put_ms]       DIRECTORY: where the log lies; removed files are the caller's
//
// The bucket is in memory. `staged` is the tree as it is. `stop` is the same tree with the cache
// locked while it is written out, which is what staging avoids.
#include <fmt/core.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>
#include <vector>

#include "base/prng.h"
#include "io/fiber_io.h"
#include "io/mutex.h"
#include "store/lsm.h"

namespace {

using namespace firn;
using namespace firn::store;
using namespace std::chrono_literals;

// Objects in memory, with a delay for each PUT.
class SlowStore final : public ObjectStore {
 public:
  explicit SlowStore(Duration put_time) : put_time_(put_time) {}
  const std::string& name() const override { return name_; }
  Result<void> put(Io& io, const std::string& key, Iovec body, const PutHow& how) override {
    ++counters_.puts;
    io.sleep(put_time_);
    if (how.once && objects_.contains(key)) return fail(Errc::exists, "{}", key);
    std::vector<std::byte> bytes;
    bytes.reserve(total_of(body));
    constexpr size_t kPiece = 64 * kKiB;  // A socket would take it in pieces, too.
    for (const ::iovec& slice : body) {
      const View part(static_cast<const std::byte*>(slice.iov_base), slice.iov_len);
      for (size_t at = 0; at < part.size(); at += kPiece) {
        const View piece = part.subspan(at, std::min(kPiece, part.size() - at));
        bytes.insert(bytes.end(), piece.begin(), piece.end());
        io.yield();
      }
    }
    counters_.bytes_put += bytes.size();
    objects_[key] = std::move(bytes);
    return ok;
  }
  Result<ObjectInfo> head(Io&, const std::string& key) override {
    if (!objects_.contains(key)) return fail(Errc::not_found, "{}", key);
    return ObjectInfo{.key = key, .bytes = objects_[key].size()};
  }
  Result<size_t> get(Io&, const std::string& key, uint64_t at, Bytes into) override {
    const auto found = objects_.find(key);
    if (found == objects_.end()) return fail(Errc::not_found, "{}", key);
    if (at >= found->second.size()) return size_t{0};
    const View part = View(found->second).subspan(at);
    const size_t count = std::min(part.size(), into.size());
    std::copy_n(part.begin(), count, into.begin());
    return count;
  }
  Result<std::vector<ObjectInfo>> list(Io&, const std::string& prefix, const std::string& after,
                                       size_t count_max) override {
    std::vector<ObjectInfo> found;
    for (auto at = objects_.upper_bound(std::max(after, prefix));
         at != objects_.end() && found.size() < count_max && at->first.starts_with(prefix); ++at) {
      found.push_back({.key = at->first, .bytes = at->second.size()});
    }
    return found;
  }
  Result<void> remove(Io&, const std::string& key) override {
    objects_.erase(key);
    return ok;
  }
  Result<void> thaw(Io&, const std::string&, uint32_t) override { return ok; }
  Result<int64_t> wall_clock_ns(Io& io) override { return io.wall_clock_ns(); }

 private:
  Duration put_time_;
  std::map<std::string, std::vector<std::byte>> objects_;
  std::string name_ = "memory";
};

template <class T>
void must(const Result<T>& result) {
  if (result) return;
  fmt::print(stderr, "lsmload: {}\n", text_of(result.error()));
  std::exit(1);
}

class Bench {
 public:
  Bench(Io& io, std::string directory, Duration put_time)
      : io_(io), directory_(std::move(directory)), store_(put_time) {
    for (char& c : value_) c = static_cast<char>(prng_.next());
  }

  void open(uint64_t capacity) {
    LsmHow how;
    how.capacity_bytes = capacity;
    how.interval = 24h;
    how.cache_bytes = kGiB;
    how.prefix = fmt::format("m{}/", ++trees_);
    how.drop_stale_log = true;
    auto opened = Lsm::open(io_, store_, directory_, how);
    must(opened);
    lsm_ = opened.take();
  }
  void close() {
    must(lsm_->close(io_));
    lsm_.reset();
  }
  void write(uint64_t key) {
    LsmBatch batch;
    batch.put(fmt::format("{:08}", key), value_);
    must(lsm_->write(io_, std::move(batch)));
  }
  void fill(uint64_t bytes) {
    for (uint64_t key = 0; key < bytes / value_.size(); ++key) {
      write(key);
      if (key % 64 == 0) io_.yield();
    }
  }

  // Latencies of paced 4 KiB writes until `over`.
  template <class Over>
  std::vector<Duration> measure(uint64_t keys, bool durable, Mutex* locked, Over&& over) {
    std::vector<Duration> times;
    // Arrivals are on a schedule, so that a writer who is held counts all who would have come.
    Time due = io_.now();
    while (!over()) {
      due = due + (durable ? 2ms : 200us);
      if (io_.now() < due) io_.sleep(due - io_.now());
      if (locked != nullptr) {
        const auto hold = locked->lock(io_);
        write(prng_.below(keys));
      } else {
        write(prng_.below(keys));
      }
      if (durable) must(lsm_->sync(io_));
      times.push_back(io_.now() - due);
    }
    return times;
  }

  void report(const char* what, const char* mode, std::vector<Duration> times) {
    std::sort(times.begin(), times.end());
    const auto at = [&](double part) {
      const auto place = static_cast<size_t>(part * static_cast<double>(times.size() - 1));
      return static_cast<double>(times[place].count()) / 1000.0;
    };
    fmt::print(
        "{{\"what\": \"{}\", \"mode\": \"{}\", \"writes\": {}, \"p50_us\": {:.1f}, \"p99_us\": "
        "{:.1f}, \"p999_us\": {:.1f}, \"max_us\": {:.1f}}}\n",
        what, mode, times.size(), at(0.5), at(0.99), at(0.999), at(1.0));
  }

  void flush(const char* mode, bool durable, bool staged) {
    open(512 * kMiB);
    constexpr uint64_t kKeys = 16384;
    fill(64 * kMiB);
    must(lsm_->sync(io_));
    const Time until = io_.now() + 2s;
    report("idle", mode, measure(kKeys, durable, nullptr, [&] { return io_.now() >= until; }));
    bool over = false;
    Mutex lock;
    Group group(io_);
    io_.spawn(group, [&] {
      std::optional<Mutex::Hold> hold;
      if (!staged) hold.emplace(lock.lock(io_));
      must(lsm_->transfer(io_));
      hold.reset();
      over = true;
    });
    report("flush", mode, measure(kKeys, durable, staged ? nullptr : &lock, [&] { return over; }));
    group.wait();
    const uint64_t before = lsm_->stats().hits;
    for (int i = 0; i < 10000; ++i) {
      must(lsm_->get(io_, fmt::format("{:08}", prng_.below(kKeys))));
    }
    fmt::print("{{\"what\": \"hits\", \"mode\": \"{}\", \"percent\": {:.1f}}}\n", mode,
               static_cast<double>(lsm_->stats().hits - before) / 100.0);
    close();
  }

  void latch(uint64_t cache_bytes) {
    open(2 * kGiB);
    fill(cache_bytes);
    must(lsm_->transfer(io_));
    std::vector<Duration> times;
    for (int i = 0; i < 300; ++i) {
      write(static_cast<uint64_t>(i));
      must(lsm_->transfer(io_));
      times.push_back(lsm_->stats().latch);
    }
    report("latch", cache_bytes > 100 * kMiB ? "256 MiB" : "1 MiB", std::move(times));
    close();
  }

 private:
  Io& io_;
  std::string directory_;
  SlowStore store_;
  Prng prng_{42};
  std::string value_ = std::string(4096, 'v');
  std::unique_ptr<Lsm> lsm_;
  int trees_ = 0;
};

}  // namespace

int main(int count, char** arguments) {
  if (count < 2) {
    fmt::print(stderr, "usage: lsmload DIRECTORY [put_ms]\n");
    return 2;
  }
  const Duration put_time = std::chrono::milliseconds(count > 2 ? std::atoi(arguments[2]) : 500);
  auto made = FiberIo::make();
  must(made);
  FiberIo& io = **made;
  io.run([&] {
    Bench bench(io, arguments[1], put_time);
    bench.flush("staged", false, true);
    bench.flush("staged, synced", true, true);
    bench.flush("stop", false, false);
    Bench quick(io, arguments[1], 0ns);
    quick.latch(kMiB);
    quick.latch(256 * kMiB);
  });
  return 0;
}
