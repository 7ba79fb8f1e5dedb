// SPDX-License-Identifier: Apache-2.0
// What a front end offers: exports by name, and the kinds of block status that clients may ask
// for.
//
// Contract:
//  X1  find() gives the same device object for the same disk, every time: all connections share
//      one cache, so a flush on any of them covers completed writes of all (NBD's multi-conn; D1
//      and D2).
//  X2  Names come from the network. A name that does not exist is Errc::not_found, never a path.
//  X3  A MetaContext is asked on its own; adding one changes no session.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "disk/device.h"
#include "io/io.h"
#include "serve/completion.h"

namespace firn::serve {

// Where status() puts its runs, in order from the beginning of the range. False: enough, stop.
class StatusSink {
 public:
  virtual ~StatusSink() = default;
  virtual bool add(uint64_t length, uint32_t flags) = 0;
};

// One kind of block status: "base:allocation", "qemu:dirty-bitmap:backup".
class MetaContext {
 public:
  virtual ~MetaContext() = default;
  const std::string& name() const { return name_; }
  // Runs that cover `range`, which lies within the device; may be cut short by the sink, never be
  // empty.
  virtual Result<void> status(Io& io, Range range, StatusSink& sink) = 0;

 protected:
  explicit MetaContext(std::string name) : name_(std::move(name)) {}
  MetaContext(const MetaContext&) = delete;
  MetaContext& operator=(const MetaContext&) = delete;

 private:
  std::string name_;
};

// Where space is: HOLE|ZERO for what holds no grain of its own and reads as zero, 0 for data.
std::shared_ptr<MetaContext> make_base_allocation(std::shared_ptr<BlockDevice> device);
// Which layer answers: 0 nobody, 1 the disk's own, 2.. an ancestor.
std::shared_ptr<MetaContext> make_allocation_depth(std::shared_ptr<BlockDevice> device);

struct Export {
  std::string name;  // The canonical one.
  std::string description;
  std::shared_ptr<BlockDevice> device;
  bool read_only = false;
  std::shared_ptr<const CompletionRules> completion;  // Null: everybody hears at once.
  // Beside the two above, which every export has.
  std::vector<std::shared_ptr<MetaContext>> contexts;
};

struct ExportEntry {
  std::string name;
  std::string description;
  bool snapshot = false;  // Never the default one.
};

class ExportSource {
 public:
  virtual ~ExportSource() = default;
  // `name` is never empty.
  virtual Result<Export> find(Io& io, std::string_view name) = 0;
  virtual std::vector<ExportEntry> list(Io& io) = 0;

 protected:
  ExportSource() = default;
  ExportSource(const ExportSource&) = delete;
  ExportSource& operator=(const ExportSource&) = delete;
};

// find(), with the empty name meaning `default_name` if that is not empty, else the only export
// there is, snapshots aside. Adds the two contexts that every export has, in front.
Result<Export> resolve_export(Io& io, ExportSource& source, std::string_view name,
                              std::string_view default_name);

// Which contexts a query means. When listing, "" is all and "qemu:" everything that begins so; when
// selecting, only a whole name is meant.
std::vector<std::shared_ptr<MetaContext>> match_contexts(
    const std::vector<std::shared_ptr<MetaContext>>& contexts, std::string_view query,
    bool listing);

}  // namespace firn::serve
