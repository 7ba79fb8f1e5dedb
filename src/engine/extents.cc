// SPDX-License-Identifier: Apache-2.0
#include "engine/extents.h"

#include <algorithm>

namespace firn::engine {
namespace {

constexpr uint64_t kWindowBytes = kGiB;  // Looked at without letting others have their turn.

// Joins what touches, across windows and layers; refuses what begins once the page is full.
class Collector final : public disk::DiffSink, public ExtentSink {
 public:
  Collector(ExtentPage& page, uint64_t limit) : page_(page), limit_(limit) {}

  void begin_window(uint64_t at) { at_ = at; }
  bool is_refused() const { return refused_; }

  bool add(disk::DiffRun run) override {
    if (!page_.extents.empty()) {
      disk::DiffRun& last = page_.extents.back();
      if (last.at + last.length == run.at && last.kind == run.kind) {
        last.length += run.length;
        return true;
      }
    }
    if (page_.extents.size() == limit_) {
      page_.next = run.at;
      refused_ = true;
      return false;
    }
    page_.extents.push_back(run);
    return true;
  }

  // Runs without a gap.
  bool add(ExtentRun run) override {
    const uint64_t begin = at_;
    at_ += run.length;
    return run.kind != Extent::data || add(disk::DiffRun{begin, run.length, Extent::data});
  }

 private:
  ExtentPage& page_;
  const uint64_t limit_;
  uint64_t at_ = 0;
  bool refused_ = false;
};

}  // namespace

Result<ExtentPage> page_of_extents(Io& io, disk::Disks& disks, std::string_view name,
                                   std::string_view base, uint64_t offset, uint64_t limit) {
  if (limit == 0) return fail(Errc::invalid, "a page of no extents never ends; ask for more");
  // Attached meanwhile: nobody deletes what is being looked at.
  const std::shared_ptr<BlockDevice> device = TRY(disks.attach(io, name));
  std::shared_ptr<BlockDevice> other;
  if (!base.empty()) other = TRY(disks.attach(io, base));
  ExtentPage page;
  page.bytes = device->geometry().bytes;
  page.next = page.bytes;
  Collector collector(page, limit);
  for (uint64_t at = offset; at < page.bytes && !collector.is_refused(); at += kWindowBytes) {
    const Range window{at, std::min(kWindowBytes, page.bytes - at)};
    collector.begin_window(at);
    if (base.empty()) {
      TRY(device->map(io, window, collector));
    } else {
      TRY(disks.diff(io, base, name, window, collector));
    }
    io.yield();
  }
  page.complete = !collector.is_refused();
  return page;
}

}  // namespace firn::engine
