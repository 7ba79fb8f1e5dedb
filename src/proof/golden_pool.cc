// SPDX-License-Identifier: Apache-2.0
#include "proof/golden_pool.h"

#include <openssl/evp.h>

#include "base/aligned.h"
#include "base/log.h"
#include "base/prng.h"
#include "sim/sim_io.h"
#include "store/pool.h"

namespace firn::proof {
namespace {

constexpr std::string_view kMagic = "firn pool image 1\n";
constexpr size_t kWords = kPageBytes / 8;

// --- what lies in it

class Maker {
 public:
  Maker(Io& io, disk::Disks& disks) : io_(io), disks_(disks) {}

  void all() {
    make("deep", 3 * kGiB);
    for (int i = 0; i < 24; ++i) {
      touch("deep", 6);
      CHECK(disks_.snapshot(io_, "deep", fmt::format("s{:02}", i)));
    }
    for (const int gone : {3, 4, 11, 0}) {
      CHECK(disks_.remove_snapshot(io_, "deep", fmt::format("s{:02}", gone)));
    }
    CHECK(disks_.sweep(io_));
    make("wide", 64 * kMiB);
    touch("wide", 20);
    CHECK(disks_.snapshot(io_, "wide", "base"));
    for (int i = 0; i < 6; ++i) fork("wide", "base", fmt::format("wide-{}", i));
    CHECK(disks_.snapshot(io_, "wide-2", "mid"));
    for (int i = 0; i < 3; ++i) fork("wide-2", "mid", fmt::format("wide-2-{}", i));
    CHECK(disks_.remove_snapshot(io_, "wide", "base"));  // Stays, hidden, under seven.
    CHECK(disks_.sweep(io_));
    make("back", kMiB);
    touch("back", 4);
    CHECK(disks_.snapshot(io_, "back", "one"));
    touch("back", 4);
    CHECK(disks_.snapshot(io_, "back", "two"));
    CHECK(disks_.resize(io_, "back", 2 * kGiB));
    touch("back", 8);
    CHECK(disks_.snapshot(io_, "back", "three"));
    CHECK(disks_.revert(io_, "back", "two", false));
    CHECK(disks_.sweep(io_));
    touch("back", 4);
    make("plain", 40 * kMiB);
    touch("plain", 30);
    CHECK(disks_.set(io_, "plain", "note", "nobody cloned me"));
    for (const int gone : {7, 8, 20}) {  // To be gone on with by whoever opens it.
      CHECK(disks_.remove_snapshot(io_, "deep", fmt::format("s{:02}", gone)));
    }
  }

 private:
  void make(const std::string& disk, uint64_t bytes) { CHECK(disks_.create(io_, disk, bytes)); }
  void fork(const std::string& of, const char* name, const std::string& to) {
    CHECK(disks_.clone(io_, of, name, to));
    touch(to, 5);
  }
  void touch(const std::string& name, int times) {
    const auto disk = disks_.attach(io_, name).take();
    const uint64_t grains = disk->geometry().bytes / kGrainBytes;
    for (int i = 0; i < times; ++i) {
      // Near the begin of some leaves, so that layers meet.
      const uint64_t leaves[] = {0, 0, 1, 5, 19, 600, 1400};
      const uint64_t at = leaves[prng_.below(std::size(leaves))] * 512 + prng_.below(24);
      const uint64_t count = 1 + prng_.below(4);
      if (at + count > grains) continue;
      const Range range{at * kGrainBytes, count * kGrainBytes};
      if (prng_.one_in(6)) {
        CHECK(disk->discard(io_, range));
        continue;
      }
      AlignedBuffer bytes(range.length);
      for (uint64_t word = 0; word < range.length / 8; ++word) {
        const le64 value(stamp_);
        std::memcpy(bytes.data() + word * 8, &value, 8);
      }
      ++stamp_;
      const ::iovec slice = slice_of(bytes.bytes());
      CHECK(disk->write(io_, range, Iovec(&slice, 1), {}));
    }
  }

  Io& io_;
  disk::Disks& disks_;
  Prng prng_{5};
  uint64_t stamp_ = 0x0101010101010101;
};

// --- pages

enum class Coding : uint8_t { zero, same, few, raw };

class Writer {
 public:
  void number(uint64_t value) {
    const le64 word(value);
    append(view_of(word));
  }
  void append(View bytes) { out.insert(out.end(), bytes.begin(), bytes.end()); }
  void page(View page) {
    size_t other = 0, nonzero = 0;
    for (size_t i = 0; i < kWords; ++i) {
      if (word(page, i) != word(page, 0)) ++other;
      if (word(page, i) != 0) ++nonzero;
    }
    if (nonzero == 0) return coding(Coding::zero);
    if (other == 0) {
      coding(Coding::same);
      return number(word(page, 0));
    }
    if (nonzero > kWords / 2) {
      coding(Coding::raw);
      return append(page);
    }
    coding(Coding::few);
    number(nonzero);
    for (size_t i = 0; i < kWords; ++i) {
      if (word(page, i) == 0) continue;
      out.push_back(static_cast<std::byte>(i));
      out.push_back(static_cast<std::byte>(i >> 8));
      number(word(page, i));
    }
  }
  std::vector<std::byte> out;

 private:
  static uint64_t word(View page, size_t i) { return load<le64>(page.subspan(i * 8)); }
  void coding(Coding kind) { out.push_back(static_cast<std::byte>(kind)); }
};

class Reader {
 public:
  explicit Reader(View in) : in_(in) {}
  bool at_end() const { return in_.empty(); }
  Result<View> take(size_t bytes) {
    if (in_.size() < bytes) return fail(Errc::corrupt, "pool image: it ends too early");
    const View taken = in_.first(bytes);
    in_ = in_.subspan(bytes);
    return taken;
  }
  Result<uint64_t> number() { return load<le64>(TRY(take(8))).get(); }
  Result<void> page(Bytes page) {
    std::memset(page.data(), 0, page.size());
    const auto put = [&](size_t i, uint64_t value) {
      const le64 word(value);
      std::memcpy(page.data() + i * 8, &word, 8);
    };
    switch (static_cast<Coding>(TRY(take(1))[0])) {
      case Coding::zero:
        return ok;
      case Coding::same: {
        const uint64_t value = TRY(number());
        for (size_t i = 0; i < kWords; ++i) put(i, value);
        return ok;
      }
      case Coding::few:
        for (uint64_t left = TRY(number()); left > 0; --left) {
          const View at = TRY(take(2));
          const size_t i = static_cast<size_t>(at[0]) | static_cast<size_t>(at[1]) << 8;
          const uint64_t value = TRY(number());
          if (i >= kWords) return fail(Errc::corrupt, "pool image: word {} of a page", i);
          put(i, value);
        }
        return ok;
      case Coding::raw: {
        const View bytes = TRY(take(kPageBytes));
        std::memcpy(page.data(), bytes.data(), bytes.size());
        return ok;
      }
    }
    return fail(Errc::corrupt, "pool image: a page coded as nothing known");
  }

 private:
  View in_;
};

// --- sums

Result<std::string> sum_of(Io& io, BlockDevice& device) {
  struct Runs final : ExtentSink {
    std::vector<Range> data;
    uint64_t at = 0;
    bool add(ExtentRun run) override {
      if (run.kind == Extent::data) data.push_back({at, run.length});
      at += run.length;
      return true;
    }
  } runs;
  TRY(device.map(io, {0, device.geometry().bytes}, runs));
  EVP_MD_CTX* const md5 = EVP_MD_CTX_new();
  CHECK(md5 != nullptr && EVP_DigestInit_ex(md5, EVP_md5(), nullptr) == 1);
  Result<void> result;
  AlignedBuffer grain(kGrainBytes);
  const ::iovec slice = slice_of(grain.bytes());
  for (const Range& run : runs.data) {
    for (uint64_t at = run.at; at < run.end() && result; at += kGrainBytes) {
      result = device.read(io, {at, kGrainBytes}, Iovec(&slice, 1));
      if (all_zero(grain.bytes())) continue;
      const le64 number(at / kGrainBytes);
      EVP_DigestUpdate(md5, &number, sizeof number);
      EVP_DigestUpdate(md5, grain.data(), grain.size());
    }
  }
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest;
  unsigned length = 0;
  EVP_DigestFinal_ex(md5, digest.data(), &length);
  EVP_MD_CTX_free(md5);
  TRY(std::move(result));
  std::string text;
  for (unsigned i = 0; i < length; ++i) text += fmt::format("{:02x}", digest[i]);
  return text;
}

}  // namespace

sim::World make_golden_pool() {
  set_log_sink([](LogLevel, std::string_view) {});
  sim::World world;
  sim::SimIo io(world, 2026, {.order = sim::Order::immediate});
  io.run([&] {
    CHECK(store::Pool::create(
        io, kGoldenPool,
        {.bytes = 16 * kMiB, .journal_bytes = 128 * kKiB, .journal_slot_bytes = kKiB}));
    store::PoolSettings settings;
    settings.background = false;
    auto pool = store::Pool::open(io, kGoldenPool, settings).take();
    auto disks = disk::Disks::open(io, *pool).take();
    Maker(io, *disks).all();
    CHECK(pool->flush(io));
    disks.reset();  // And no close: as after kill -9.
  });
  set_log_sink(nullptr);
  return world;
}

std::vector<std::byte> pack_world(const sim::World& world) {
  Writer writer;
  writer.append(std::as_bytes(std::span(kMagic)));
  for (const auto& [path, name] : world.now().names) {
    if (name.kind != sim::Name::Kind::file) continue;
    std::vector<std::byte> content = world.content(path);
    const uint64_t bytes = content.size();
    content.resize(round_up(bytes, kPageBytes));
    writer.number(path.size());
    writer.append(std::as_bytes(std::span(path)));
    writer.number(bytes);
    for (size_t at = 0; at < content.size(); at += kPageBytes) {
      writer.page(View(content).subspan(at, kPageBytes));
    }
  }
  return std::move(writer.out);
}

Result<sim::World> unpack_world(View packed) {
  Reader reader(packed);
  const View magic = TRY(reader.take(kMagic.size()));
  if (std::memcmp(magic.data(), kMagic.data(), magic.size()) != 0) {
    return fail(Errc::corrupt, "pool image: it does not begin as one");
  }
  sim::World world;
  world.make_directory(kGoldenPool);
  Result<void> result;
  sim::SimIo io(world, 1, {.order = sim::Order::immediate});
  const auto unpack_file = [&]() -> Result<void> {
    const View name = TRY(reader.take(TRY(reader.number())));
    std::string path(name.size(), '\0');
    std::memcpy(path.data(), name.data(), name.size());
    const uint64_t bytes = TRY(reader.number());
    const auto file = TRY(io.open(path, OpenHow{.create = true}));
    TRY(io.resize(*file, bytes));
    AlignedBuffer page(kPageBytes);
    for (uint64_t at = 0; at < bytes; at += kPageBytes) {
      TRY(reader.page(page.bytes()));
      if (all_zero(page.bytes())) continue;
      TRY(io.write(*file, at, View(page.bytes()).first(std::min(kPageBytes, bytes - at))));
    }
    return ok;
  };
  io.run([&] {
    while (result && !reader.at_end()) result = unpack_file();
  });
  TRY(std::move(result));
  world.settle();
  return world;
}

Result<std::map<std::string, std::string>> sums_of(Io& io, disk::Disks& disks) {
  std::map<std::string, std::string> sums;
  for (const disk::DiskInfo& info : disks.list()) {
    std::vector<std::string> names = {info.name};
    for (const disk::SnapshotInfo& each : TRY(disks.snapshots(info.name))) {
      names.push_back(info.name + "@" + each.name);
    }
    for (const std::string& name : names) {
      const auto device = TRY(disks.attach(io, name));
      sums[name] = TRY(sum_of(io, *device));
    }
  }
  return sums;
}

}  // namespace firn::proof
