// SPDX-License-Identifier: Apache-2.0
#include "serve/exports.h"

#include "wire/nbd.h"

namespace firn::serve {
namespace {

// Translates a device's extents, run by run.
template <class FlagsOf>
class Translated final : public ExtentSink {
 public:
  Translated(StatusSink& sink, FlagsOf flags_of) : sink_(sink), flags_of_(flags_of) {}
  bool add(ExtentRun run) override { return sink_.add(run.length, flags_of_(run)); }

 private:
  StatusSink& sink_;
  FlagsOf flags_of_;
};

class DeviceContext : public MetaContext {
 protected:
  DeviceContext(std::string name, std::shared_ptr<BlockDevice> device)
      : MetaContext(std::move(name)), device_(std::move(device)) {}
  std::shared_ptr<BlockDevice> device_;
};

class BaseAllocation final : public DeviceContext {
 public:
  explicit BaseAllocation(std::shared_ptr<BlockDevice> device)
      : DeviceContext("base:allocation", std::move(device)) {}
  Result<void> status(Io& io, Range range, StatusSink& sink) override {
    // A zero extent has no grain either: writing there may need space, which is what HOLE warns of.
    Translated translated(sink, [](const ExtentRun& run) {
      return run.kind == Extent::data ? 0U : wire::nbd::kStateHole | wire::nbd::kStateZero;
    });
    return device_->map(io, range, translated);
  }
};

class AllocationDepth final : public DeviceContext {
 public:
  explicit AllocationDepth(std::shared_ptr<BlockDevice> device)
      : DeviceContext("qemu:allocation-depth", std::move(device)) {}
  Result<void> status(Io& io, Range range, StatusSink& sink) override {
    Translated translated(sink, [](const ExtentRun& run) { return run.depth; });
    return device_->map(io, range, translated);
  }
};

}  // namespace

std::shared_ptr<MetaContext> make_base_allocation(std::shared_ptr<BlockDevice> device) {
  return std::make_shared<BaseAllocation>(std::move(device));
}
std::shared_ptr<MetaContext> make_allocation_depth(std::shared_ptr<BlockDevice> device) {
  return std::make_shared<AllocationDepth>(std::move(device));
}

Result<Export> resolve_export(Io& io, ExportSource& source, std::string_view name,
                              std::string_view default_name) {
  std::string wanted(name.empty() ? default_name : name);
  if (wanted.empty()) {
    std::vector<ExportEntry> entries = source.list(io);
    std::erase_if(entries, [](const ExportEntry& entry) { return entry.snapshot; });
    if (entries.size() != 1) {
      return fail(Errc::not_found, "no export is the default one: there are {}", entries.size());
    }
    wanted = entries.front().name;
  }
  Export found = TRY(source.find(io, wanted));
  found.contexts.insert(found.contexts.begin(),
                        {make_base_allocation(found.device), make_allocation_depth(found.device)});
  return found;
}

std::vector<std::shared_ptr<MetaContext>> match_contexts(
    const std::vector<std::shared_ptr<MetaContext>>& contexts, std::string_view query,
    bool listing) {
  const bool prefix = listing && (query.empty() || query.ends_with(':'));
  std::vector<std::shared_ptr<MetaContext>> found;
  for (const auto& context : contexts) {
    const std::string_view name = context->name();
    if (prefix ? name.starts_with(query) : name == query) found.push_back(context);
  }
  return found;
}

}  // namespace firn::serve
