// SPDX-License-Identifier: Apache-2.0
// The one implementation of Disks; its check lives in check.cc.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "disk/catalog.h"
#include "disk/disks.h"
#include "disk/thin.h"
#include "io/mutex.h"

namespace firn::disk {

class DisksImpl final : public Disks {
 public:
  explicit DisksImpl(store::Pool& pool) : pool_(pool), catalog_(pool) {}
  ~DisksImpl() override;

  Result<void> load(Io& io);

  std::vector<DiskInfo> list() const override;
  Result<DiskInfo> info(std::string_view name) const override;
  Result<void> create(Io& io, std::string_view name, uint64_t bytes) override;
  Result<void> rename(Io& io, std::string_view name, std::string_view to) override;
  Result<void> resize(Io& io, std::string_view name, uint64_t bytes) override;
  Result<void> remove(Io& io, std::string_view name) override;
  Result<void> set(Io& io, std::string_view name, std::string_view key,
                   std::string_view value) override;
  Result<std::shared_ptr<BlockDevice>> attach(Io& io, std::string_view name) override;
  Result<CheckReport> check(Io& io, bool repair) override;

 private:
  using Names = std::map<std::string, Catalog::NameSeen, std::less<>>;
  struct Open {
    std::shared_ptr<ThinDisk> disk;
    std::shared_ptr<uint32_t> attached = std::make_shared<uint32_t>(0);
  };

  Result<Names::iterator> find(std::string_view name);
  Result<Names::const_iterator> find(std::string_view name) const;
  DiskInfo describe(const Catalog::NameSeen& seen) const;
  uint32_t attached(uint32_t layer) const;
  Result<void> refuse_attached(const Catalog::NameSeen& seen, std::string_view verb) const;
  Result<std::shared_ptr<ThinDisk>> open_layer(Io& io, uint32_t layer, const std::string& name);
  Result<void> put_name(Io& io, const Catalog::NameSeen& seen);
  Result<void> drop_layer(Io& io, uint32_t layer);

  store::Pool& pool_;
  Catalog catalog_;
  Gate gate_;                      // Whoever changes maps passes; the check closes it.
  Mutex changing_;                 // One change of the catalog at a time.
  std::map<uint32_t, Open> open_;  // By layer; kept until the disk is removed.
};

}  // namespace firn::disk
