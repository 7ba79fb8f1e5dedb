// SPDX-License-Identifier: Apache-2.0
// Notes on the design
//
// I1  Whatever changes the world does so in the driver, at the virtual moment of its completion,
// not when
//     its fiber gets its turn: the log is then the truth about what was completed when.
// I2  Three generators: nature (latencies, partial effects), the picker, and the program's
// random(). A
//     change in one part does not reshuffle the others, which keeps shrunk failures alike.
#include "sim/sim_io.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "io/host_file.h"

namespace firn::sim {
namespace {

class SimFile final : public File {
 public:
  SimFile(World& world, std::string name, uint32_t alignment, FileId id, bool writable)
      : File(std::move(name), alignment), world_(world), id_(id), writable_(writable) {}
  ~SimFile() override { unlock(); }
  FileId id() const { return id_; }
  bool writable() const { return writable_; }
  bool flush_failed = false;  // W4: final.

  bool lock(bool exclusive) {
    unlock();
    locked_ = world_.try_lock(id_, exclusive);
    exclusive_ = exclusive;
    return locked_;
  }

 private:
  void unlock() {
    if (std::exchange(locked_, false)) world_.unlock(id_, exclusive_);
  }
  World& world_;
  FileId id_;
  bool writable_;
  bool locked_ = false;
  bool exclusive_ = false;
};

SimFile& sim(File& file) { return static_cast<SimFile&>(file); }

// Arenas are kept between the lives of SimIo: a crash enumeration makes one per image.
thread_local std::unique_ptr<BufferPool> spare_buffers;

}  // namespace

SimIo::SimIo(World& world, uint64_t seed, SimOptions options)
    : world_(world),
      options_(std::move(options)),
      seed_(seed),
      nature_(seed),
      program_(~seed),
      picker_(*this, seed ^ 0x5851f42d4c957f2dULL),
      scheduler_(options_.order == Order::drawn ? &picker_ : nullptr),
      trace_(seed) {}

SimIo::~SimIo() {
  if (buffers_ != nullptr && buffers_->bytes_in_use() == 0) spare_buffers = std::move(buffers_);
}

size_t SimIo::Picker::pick(size_t count) {
  const auto chosen = static_cast<size_t>(prng_.below(count));
  io_.trace(chosen);
  return chosen;
}

void SimIo::trace_text(const std::string& text) {
  trace(crc32c(std::as_bytes(std::span(text.data(), text.size()))));
}

// --- the driver

void SimIo::run(Task main) {
  scheduler_.spawn(nullptr, std::move(main));
  while (scheduler_.alive() > 0) {
    scheduler_.run_ready();
    if (scheduler_.has_ready()) look_at_pollers();
    if (scheduler_.has_ready() || scheduler_.alive() == 0 || pollers_found()) continue;
    CHECK(!due_.empty(), "deadlock under seed {} at {} ns: nothing is due, and {}", seed_,
          now_.since_origin.count(), scheduler_.describe_waiting());
    run_next_due();
  }
}

bool SimIo::look_at_pollers() {
  bool found = false;
  for (Poller* each = pollers_.front(); each != nullptr; each = Pollers::after(each)) {
    found |= each->look();
  }
  return found;
}

// As a shard does before it sleeps. Sometimes it does not look before it arms.
bool SimIo::pollers_found() {
  const bool looks = !pollers_.empty() && (options_.order != Order::drawn || !nature_.one_in(4));
  bool found = looks && look_at_pollers();
  for (Poller* each = pollers_.front(); !found && each != nullptr;) {
    Poller* const next = Pollers::after(each);
    found |= each->arm();
    each = next;
  }
  return found;
}

void SimIo::run_next_due() {
  const Due next = due_.front();
  std::pop_heap(due_.begin(), due_.end(), Later());
  due_.pop_back();
  now_ = std::max(now_, next.when);
  trace(next.number, now_.since_origin.count());
  if (next.effect != nullptr) next.effect(next.with);
  scheduler_.make_ready(*next.fiber);
}

void SimIo::wait_until(Time when, const char* what, void (*effect)(void*), void* with) {
  NoWait::assert_may_wait();
  CHECK(scheduler_.current() != nullptr, "{} outside of run()", what);
  due_.push_back({when, due_count_++, scheduler_.current(), effect, with});
  std::push_heap(due_.begin(), due_.end(), Later());
  scheduler_.suspend(what);
}

template <class Effect>
void SimIo::after_latency(const char* what, Effect&& effect) {
  NoWait::assert_may_wait();
  ++operations_;
  CHECK(options_.operations_max == 0 || operations_ <= options_.operations_max,
        "more than {} operations under seed {}: the program does not end", options_.operations_max,
        seed_);
  if (options_.order == Order::immediate) {
    effect();
    return;
  }
  Duration latency = options_.latency_min;
  if (options_.order == Order::drawn) {
    const auto width = static_cast<uint64_t>((options_.latency_max - latency).count());
    latency += Duration(nature_.below(width + 1));
  }
  using Held = std::remove_reference_t<Effect>;
  wait_until(
      now_ + latency, what, [](void* with) { (*static_cast<Held*>(with))(); }, &effect);
}

void SimIo::sleep(Duration duration) {
  wait_until(now_ + std::max(duration, Duration::zero()), "sleep", nullptr, nullptr);
}

void SimIo::offload(Task task) {
  NoWait::assert_may_wait();
  // Others may run meanwhile, as in production.
  if (options_.order != Order::immediate) sleep(options_.latency_min);
  task();
}

bool SimIo::sometimes(const char* what) {
  if (!options_.sometimes) return false;
  const std::string site(what);
  const uint64_t of_site = crc32c(std::as_bytes(std::span(site.data(), site.size())));
  // Swarm: a quarter of the sites is on for a seed, and those fire a quarter of the time.
  if (Prng(seed_ ^ (of_site << 20)).below(4) != 0) return false;
  const bool fires = nature_.one_in(4);
  if (fires) ++sites_[site];
  trace(fires);
  return fires;
}

// --- faults

size_t SimIo::add_fault(Fault fault) {
  CHECK(fault.nth > 0, "calls are counted from 1");
  faults_.push_back(std::move(fault));
  return faults_.size() - 1;
}

std::optional<SimIo::Strike> SimIo::strike(Verb verb, const std::string& path) {
  std::optional<Strike> hit;
  for (Fault& fault : faults_) {
    if (fault.verb != Verb::any && fault.verb != verb) continue;
    if (!matches(fault.files, path)) continue;
    ++fault.calls;
    if (hit) continue;
    if (fault.calls != fault.nth && !(fault.and_all_later && fault.calls > fault.nth)) continue;
    ++fault.struck;
    hit = Strike{fault.effect, fault.error, fault.shift};
  }
  trace(verb, hit.has_value());
  return hit;
}

// --- names

Result<std::unique_ptr<File>> SimIo::open(const std::string& path, OpenHow how) {
  const std::optional<Strike> fault = strike(Verb::open, path);
  trace_text(path);
  after_latency("open", [] {});
  if (fault) return fail_errno(fault->error, "cannot open {}", path);
  const std::string place = world_.now().resolve(path);
  const Name* name = world_.now().find(place);
  FileId id = kNoFile;
  if (name == nullptr) {
    if (!how.create) return fail_errno(ENOENT, "cannot open {}", path);
    Change change;
    change.kind = ChangeKind::create;
    change.path = place;
    change.file = id = world_.reserve_file(place);
    TRY(change_name("cannot make", std::move(change)));
  } else {
    if (how.create && how.exclusive) return fail_errno(EEXIST, "cannot open {}", path);
    if (name->kind != Name::Kind::file) {
      return fail(Errc::invalid, "cannot open {}: it is a directory", path);
    }
    id = name->file;
  }
  const uint32_t alignment = how.direct ? options_.direct_alignment : 1;
  return std::unique_ptr<File>(
      std::make_unique<SimFile>(world_, path, alignment, id, how.writable));
}

Result<void> SimIo::change_name(const char* what, Change change) {
  const std::string path = change.path;
  const std::string parent = world_.now().resolve(directory_of(path));
  const Name* home = world_.now().find(parent);
  if (!parent.empty() && (home == nullptr || home->kind != Name::Kind::directory)) {
    return fail_errno(ENOENT, "{} {}: no directory {}", what, path, parent);
  }
  const bool there = world_.now().names.contains(path);
  if (change.kind == ChangeKind::remove) {
    if (!there) return fail_errno(ENOENT, "{} {}", what, path);
  } else if (there) {
    return fail_errno(EEXIST, "{} {}", what, path);
  }
  trace(change.kind);
  trace_text(path);
  world_.complete(world_.issue(std::move(change)));
  return ok;
}

Result<void> SimIo::remove(const std::string& path) {
  const std::optional<Strike> fault = strike(Verb::remove, path);
  after_latency("remove", [] {});
  if (fault) return fail_errno(fault->error, "cannot remove {}", path);
  return change_name("cannot remove",
                     {.kind = ChangeKind::remove, .data = {}, .path = path, .target = {}});
}

Result<bool> SimIo::directory_is_empty(const std::string& path) {
  const std::optional<Strike> fault = strike(Verb::name, path);
  after_latency("directory_is_empty", [] {});
  if (fault) return fail_errno(fault->error, "cannot look into directory {}", path);
  const auto& names = world_.now().names;
  const auto first = names.lower_bound(path + "/");
  return first == names.end() || !first->first.starts_with(path + "/");
}

Result<void> SimIo::make_directory(const std::string& path) {
  const std::optional<Strike> fault = strike(Verb::name, path);
  after_latency("make_directory", [] {});
  if (fault) return fail_errno(fault->error, "cannot make directory {}", path);
  return change_name("cannot make directory",
                     {.kind = ChangeKind::make_directory, .data = {}, .path = path, .target = {}});
}

Result<void> SimIo::link_symbolically(const std::string& target, const std::string& path) {
  const std::optional<Strike> fault = strike(Verb::name, path);
  after_latency("link", [] {});
  if (fault) return fail_errno(fault->error, "cannot link {} to {}", path, target);
  return change_name("cannot link",
                     {.kind = ChangeKind::link, .data = {}, .path = path, .target = target});
}

Result<void> SimIo::lock(File& file, bool exclusive) {
  const std::optional<Strike> fault = strike(Verb::lock, file.name());
  if (fault) return fail_errno(fault->error, "cannot lock {}", file.name());
  if (!sim(file).lock(exclusive)) return fail_errno(EBUSY, "cannot lock {}", file.name());
  return ok;
}

namespace {

class SimMemory final : public LastingMemory {
 public:
  explicit SimMemory(std::shared_ptr<LastingBytes> kept) : kept_(std::move(kept)) {}
  Bytes bytes() const override { return kept_->bytes(); }
  bool broken() const override { return false; }

 private:
  std::shared_ptr<LastingBytes> kept_;
};

}  // namespace

Result<std::unique_ptr<LastingMemory>> SimIo::map_lasting(const std::string& path, uint64_t bytes) {
  std::shared_ptr<LastingBytes>& kept = world_.lasting()[path];
  if (kept == nullptr) kept = std::make_shared<LastingBytes>(bytes);
  CHECK(kept->bytes().size() == bytes, "{} was of another size", path);
  return std::unique_ptr<LastingMemory>(std::make_unique<SimMemory>(kept));
}

// --- content

Result<uint64_t> SimIo::size(File& file) {
  NoWait::assert_may_wait();
  return world_.now().files[sim(file).id()].image.size();
}

Result<void> SimIo::read(File& file, uint64_t at, Iovec into) {
  TRY(check_transfer("read", file, at, into));
  const uint64_t length = total_of(into);
  const std::optional<Strike> fault = strike(Verb::read, file.name());
  const FileId id = sim(file).id();
  trace(id, at, length);
  bool unreadable = false;
  uint64_t size = 0;
  after_latency("read", [&] {
    const Image& image = world_.now().files[id].image;
    size = image.size();
    unreadable = world_.unreadable(id, at, length);
    uint64_t here = at;
    for (const ::iovec& slice : into) {
      image.read(here, Bytes(static_cast<std::byte*>(slice.iov_base), slice.iov_len));
      here += slice.iov_len;
    }
  });
  if (fault) return fail_errno(fault->error, "read of {} at {}", file.name(), at);
  if (length > 0 && (at >= size || length > size - at)) {
    return past_the_end(file, at, length, at >= size ? 0 : size - at);
  }
  if (unreadable) return fail_errno(EIO, "read of {} at {}", file.name(), at);
  return ok;
}

// A change of one file's content, from its issue to its completion or its failure.
Result<void> SimIo::change_content(const char* what, Verb verb, File& file, Change change) {
  const FileId id = sim(file).id();
  const uint64_t at = change.at;
  const uint64_t length = change.kind == ChangeKind::write ? change.data.size() : change.length;
  change.file = id;
  const std::optional<Strike> fault = strike(verb, file.name());
  trace(change.kind, id, at, length);
  if (!sim(file).writable()) return fail_errno(EBADF, "{} of {} at {}", what, file.name(), at);
  int sys = 0;
  bool lost = false;
  if (fault) {
    if (fault->effect == Effect::fail) sys = fault->error;
    lost = fault->effect == Effect::lose;
    if (fault->effect == Effect::misdirect) {
      change.at =
          static_cast<uint64_t>(std::max<int64_t>(0, static_cast<int64_t>(at) + fault->shift));
    }
  }
  const bool write = change.kind == ChangeKind::write;
  if (write) trace(crc32c(change.data));
  uint64_t number = 0;
  if (!lost) number = world_.issue(std::move(change));
  after_latency(what, [&] {
    if (lost) return;
    if (write && sys == 0 && !world_.fits(id, at, length)) sys = ENOSPC;
    if (sys == 0) {
      world_.complete(number);
      return;
    }
    // What failed may have happened in part: nothing, some sectors, or all of it.
    const uint64_t sectors = write ? (length + 511) / 512 : 1;
    uint64_t happened = nature_.one_in(2) ? 0 : nature_.below(sectors + 1);
    if (write) happened = std::min(happened * 512, length);
    if (write && sys == ENOSPC) happened = 0;  // No space came from anywhere.
    world_.fail(number, happened);
  });
  if (sys != 0) return fail_errno(sys, "{} of {} at {}", what, file.name(), at);
  return ok;
}

Result<void> SimIo::write(File& file, uint64_t at, Iovec from) {
  TRY(check_transfer("write", file, at, from));
  Change change;
  change.at = at;
  change.data.reserve(total_of(from));
  for (const ::iovec& slice : from) {
    const auto* begin = static_cast<const std::byte*>(slice.iov_base);
    change.data.insert(change.data.end(), begin, begin + slice.iov_len);
  }
  if (change.data.empty()) return ok;
  return change_content("write", Verb::write, file, std::move(change));
}

Result<void> SimIo::punch(File& file, uint64_t at, uint64_t length) {
  NoWait::assert_may_wait();
  if (length == 0) return ok;
  Change change;
  change.kind = ChangeKind::punch;
  change.at = at;
  change.length = length;
  return change_content("punch", Verb::punch, file, std::move(change));
}

Result<void> SimIo::resize(File& file, uint64_t bytes) {
  Change change;
  change.kind = ChangeKind::resize;
  change.length = bytes;
  return change_content("resize", Verb::resize, file, std::move(change));
}

Result<void> SimIo::flush_now(const char* what, uint64_t number, std::optional<Strike> fault,
                              const std::string& name, bool* failed_before) {
  int sys = 0;
  bool failed_meanwhile = false;
  after_latency(what, [&] {
    failed_meanwhile = *failed_before;  // By a flush that was in flight with this one.
    if (failed_meanwhile) return;
    if (fault && fault->effect == Effect::fail) {
      sys = fault->error;
      *failed_before = true;
      return;
    }
    if (!fault || fault->effect != Effect::lie) world_.complete_flush(number);
  });
  if (failed_meanwhile) sys = EIO;
  if (sys != 0) return fail_errno(sys, "{} of {}", what, name);
  return ok;
}

Result<void> SimIo::flush(File& file) {
  NoWait::assert_may_wait();
  SimFile& target = sim(file);
  const std::optional<Strike> fault = strike(Verb::flush, file.name());
  if (target.flush_failed) return earlier_flush_failed(file);
  trace(target.id());
  return flush_now("flush", world_.begin_flush(target.id()), fault, file.name(),
                   &target.flush_failed);
}

Result<void> SimIo::flush_directory(const std::string& path) {
  NoWait::assert_may_wait();
  const std::string place = world_.now().resolve(path);
  const std::optional<Strike> fault = strike(Verb::flush, place);
  const Name* name = world_.now().find(place);
  if (!place.empty() && (name == nullptr || name->kind != Name::Kind::directory)) {
    return fail_errno(ENOENT, "flush of directory {}", path);
  }
  bool failed_before = false;
  return flush_now("flush of a directory", world_.begin_directory_flush(place), fault, path,
                   &failed_before);
}

BufferPool& SimIo::buffers() {
  if (buffers_ == nullptr) {
    if (spare_buffers != nullptr && spare_buffers->arena().size() == options_.buffer_bytes) {
      buffers_ = std::move(spare_buffers);
    } else {
      buffers_ = std::make_unique<BufferPool>(options_.buffer_bytes);
    }
  }
  return *buffers_;
}

}  // namespace firn::sim
