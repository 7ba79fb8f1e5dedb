// SPDX-License-Identifier: Apache-2.0
// Notes on the design. Front ends keep the device that they were given, and settings change under
// them: so they get a DiskPath, which hands each request to the uppermost part that is on, or to
// the disk itself. Parts are made when they are first wanted and stay until the path goes, because
// requests may be inside.
//
//   front ends ── DiskPath ── [limits] ── [coalesce] ── [backed] ── disk
//
// Limits stand above: they count what guests ask, not what becomes of it.
#include "engine/disk_paths.h"

#include <algorithm>

#include "engine/instant.h"

namespace firn::engine {

class DiskPath final : public BlockDevice {
 public:
  // `backed`: stands for the disk, as long as the path is there; or nullptr.
  DiskPath(BlockDevice& disk, std::shared_ptr<BlockDevice> backed)
      : backed_(std::move(backed)), disk_(backed_ == nullptr ? disk : *backed_), top_(&disk_) {}

  void apply(Io& io, const Settings& settings, bool lifted);
  DiskPaths::Parts parts() const { return {limits_.get(), coalesce_.get()}; }
  std::shared_ptr<const serve::CompletionRules> completion() const { return completion_; }

  Geometry geometry() const override { return top_->geometry(); }
  Result<void> read(Io& io, Range range, Iovec into) override {
    return top_->read(io, range, into);
  }
  Result<void> write(Io& io, Range range, Iovec from, WriteFlags flags) override {
    return top_->write(io, range, from, flags);
  }
  Result<void> zero(Io& io, Range range, ZeroFlags flags) override {
    return top_->zero(io, range, flags);
  }
  Result<void> discard(Io& io, Range range) override { return top_->discard(io, range); }
  Result<void> flush(Io& io) override { return top_->flush(io); }
  Result<void> map(Io& io, Range range, ExtentSink& sink) override {
    return top_->map(io, range, sink);
  }

 private:
  const std::shared_ptr<BlockDevice> backed_;
  BlockDevice& disk_;
  BlockDevice* top_;
  std::unique_ptr<disk::CoalescedDevice> coalesce_;
  std::unique_ptr<disk::LimitedDevice> limits_;
  std::shared_ptr<serve::CompletionRules> completion_ = std::make_shared<serve::CompletionRules>();
};

namespace {

// What a front end holds: the path, and its own attachment of the disk, so that users are counted.
struct Held {
  std::shared_ptr<BlockDevice> disk;
  std::shared_ptr<DiskPath> path;  // Goes first.
};

policy::TokenBucket::Limits bucket(uint64_t rate, uint64_t burst_ms) {
  __extension__ using Wide = unsigned __int128;
  const auto burst = static_cast<uint64_t>(static_cast<Wide>(rate) * burst_ms / 1000);
  return {rate, rate == 0 ? 0 : std::max<uint64_t>(burst, 1)};
}

}  // namespace

std::optional<disk::LimitedDevice::Limits> limits_of(const Settings& settings) {
  const uint64_t iops = count_setting(settings, "iops");
  const uint64_t bandwidth = count_setting(settings, "bandwidth");
  if (iops == 0 && bandwidth == 0) return std::nullopt;
  const uint64_t burst_ms = count_setting(settings, "burst");
  return disk::LimitedDevice::Limits{.requests = bucket(iops, burst_ms),
                                     .bytes = bucket(bandwidth, burst_ms)};
}

serve::CompletionRules completion_of(const Settings& settings) {
  using policy::CompletionPace;
  constexpr std::string_view kFloor = "-floor";
  std::string pace = text_setting(settings, "pace");
  const bool floor = pace.ends_with(kFloor);
  if (floor) pace.resize(pace.size() - kFloor.size());
  serve::CompletionRules rules;
  rules.gathers = text_setting(settings, "completion") == "adaptive";
  rules.pace = CompletionPace::preset(pace).value_or(CompletionPace::Limits());
  if (floor) rules.pace.mode = CompletionPace::Mode::floor;
  return rules;
}

void DiskPath::apply(Io& io, const Settings& settings, bool lifted) {
  using Coalesced = disk::CoalescedDevice;
  const uint64_t version = completion_->version;
  *completion_ = completion_of(settings);
  completion_->version = version + 1;
  // Who ends the daemon waits for nobody's pace.
  if (lifted) completion_->pace = policy::CompletionPace::Limits();
  top_ = &disk_;
  const bool coalesces = text_setting(settings, "coalesce") == "auto";
  if (coalesces && coalesce_ == nullptr) {
    coalesce_ = std::make_unique<Coalesced>(io, disk_, Coalesced::Limits());
  }
  if (coalesce_ != nullptr) {
    coalesce_->set_mode(io, coalesces ? Coalesced::Mode::adaptive : Coalesced::Mode::off);
  }
  if (coalesces) top_ = coalesce_.get();
  const auto limits = lifted ? std::nullopt : limits_of(settings);
  if (limits && limits_ == nullptr) {
    limits_ = std::make_unique<disk::LimitedDevice>(io.now(), *top_, *limits);
  }
  if (limits_ == nullptr) return;
  limits_->set_below(*top_);
  limits_->set_limits(io.now(), limits.value_or(disk::LimitedDevice::Limits()));
  if (limits) top_ = limits_.get();
}

Result<std::shared_ptr<BlockDevice>> DiskPaths::attach(Io& io, std::string_view name) {
  Result<disk::DiskInfo> info = disks_.info(name);
  std::shared_ptr<BlockDevice> disk = TRY(disks_.attach(io, name));
  if (!info) return disk;  // A snapshot.
  // What has been set meanwhile counts; but the name may be another disk's by now.
  Result<disk::DiskInfo> again = disks_.info(name);
  if (again && again->uuid == info->uuid) info = std::move(again);
  std::weak_ptr<DiskPath>& known = paths_[info->uuid];
  std::shared_ptr<DiskPath> path = known.lock();
  if (path == nullptr) {
    std::shared_ptr<BlockDevice> backed;
    if (instant_ != nullptr) backed = TRY(instant_->device(*info, disk));
    path = std::make_shared<DiskPath>(*disk, std::move(backed));
    path->apply(io, info->settings, lifted_);
    known = path;
  }
  DiskPath* const device = path.get();
  const auto held = std::make_shared<Held>(Held{std::move(disk), std::move(path)});
  return std::shared_ptr<BlockDevice>(held, device);
}

std::shared_ptr<const serve::CompletionRules> DiskPaths::completion(std::string_view name) const {
  const Result<disk::DiskInfo> info = disks_.info(name);
  const auto found = info ? paths_.find(info->uuid) : paths_.end();
  const auto path = found == paths_.end() ? nullptr : found->second.lock();
  return path == nullptr ? nullptr : path->completion();
}

void DiskPaths::apply(Io& io, std::string_view name) {
  const Result<disk::DiskInfo> info = disks_.info(name);
  if (!info) return;
  const auto found = paths_.find(info->uuid);
  if (found == paths_.end()) return;
  if (const std::shared_ptr<DiskPath> path = found->second.lock()) {
    path->apply(io, info->settings, lifted_);
  } else {
    paths_.erase(found);
  }
}

void DiskPaths::lift(Io& io) {
  lifted_ = true;
  for (const disk::DiskInfo& info : disks_.list()) apply(io, info.name);
}

std::map<std::string, DiskPaths::Parts> DiskPaths::parts() const {
  std::map<std::string, Parts> all;
  for (const disk::DiskInfo& info : disks_.list()) {
    const auto found = paths_.find(info.uuid);
    if (found == paths_.end()) continue;
    if (const std::shared_ptr<DiskPath> path = found->second.lock()) {
      all.emplace(info.name, path->parts());
    }
  }
  return all;
}

}  // namespace firn::engine
