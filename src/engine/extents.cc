// SPDX-License-Identifier: Apache-2.0
#include "engine/extents.h"

namespace firn::engine {
namespace {

class Collector final : public disk::DiffSink, public ExtentSink {
 public:
  Collector(ExtentPage& page, uint64_t offset, uint64_t limit)
      : page_(page), at_(offset), limit_(limit) {}

  bool add(disk::DiffRun run) override {
    page_.extents.push_back(run);
    return !is_full();
  }

  // Runs without a gap; those of several layers side by side are one extent.
  bool add(ExtentRun run) override {
    const uint64_t begin = at_;
    at_ += run.length;
    if (run.kind != Extent::data) return !is_full();
    if (!page_.extents.empty()) {
      disk::DiffRun& last = page_.extents.back();
      if (last.at + last.length == begin) {
        last.length += run.length;
        return true;
      }
    }
    page_.extents.push_back({begin, run.length, Extent::data});
    return true;
  }

  bool is_full() const { return page_.extents.size() >= limit_; }

 private:
  ExtentPage& page_;
  uint64_t at_;
  const uint64_t limit_;
};

}  // namespace

Result<ExtentPage> page_of_extents(Io& io, disk::Disks& disks, std::string_view name,
                                   std::string_view base, uint64_t offset, uint64_t limit) {
  if (limit == 0) return fail(Errc::invalid, "a page of no extents never ends; ask for more");
  const std::shared_ptr<BlockDevice> device = TRY(disks.attach(io, name));
  ExtentPage page;
  page.bytes = device->geometry().bytes;
  page.next = page.bytes;
  page.complete = true;
  const Range range{offset, offset < page.bytes ? page.bytes - offset : 0};
  Collector collector(page, offset, limit);
  if (range.empty()) {
    if (!base.empty()) TRY(disks.attach(io, base));  // So that its name is judged on every page.
    return page;
  }
  if (base.empty()) {
    TRY(device->map(io, range, collector));
  } else {
    TRY(disks.diff(io, base, name, range, collector));
  }
  if (collector.is_full()) {
    const disk::DiffRun& last = page.extents.back();
    page.next = last.at + last.length;
    page.complete = page.next == page.bytes;
  }
  return page;
}

}  // namespace firn::engine
