// SPDX-License-Identifier: Apache-2.0
// For tests of disks that need no simulated world.
#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <memory>
#include <string>

#include "disk/disks.h"
#include "io/blocking_io.h"

namespace firn::disk {

// A pool in a directory of its own, on plain system calls.
class PoolFixture : public testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/firn-thin-XXXXXX";
    ASSERT_NE(mkdtemp(name), nullptr);
    directory_ = name;
    path_ = directory_ + "/pool";
    const auto created =
        store::Pool::create(io_, path_, {.bytes = pool_bytes_, .journal_bytes = kMiB});
    ASSERT_TRUE(created) << text_of(created.error());
    open();
  }
  void TearDown() override {
    close();
    std::filesystem::remove_all(directory_);
  }
  void open() {
    auto pool = store::Pool::open(io_, path_, {.background = false});
    ASSERT_TRUE(pool) << text_of(pool.error());
    pool_ = pool.take();
    auto disks = Disks::open(io_, *pool_);
    ASSERT_TRUE(disks) << text_of(disks.error());
    disks_ = disks.take();
  }
  void close() {
    disk_.reset();
    disks_.reset();
    if (pool_ != nullptr) {
      EXPECT_TRUE(pool_->close(io_));
    }
    pool_.reset();
  }
  void attach(const char* name) {
    auto disk = disks_->attach(io_, name);
    ASSERT_TRUE(disk) << text_of(disk.error());
    disk_ = disk.take();
  }
  void write(uint64_t at, const std::string& text) {
    const ::iovec slice = slice_of(std::as_bytes(std::span(text)));
    const auto wrote = disk_->write(io_, {at, text.size()}, Iovec(&slice, 1), {});
    ASSERT_TRUE(wrote) << text_of(wrote.error());
  }
  std::string read(uint64_t at, size_t length) {
    std::string text(length, '?');
    const ::iovec slice = slice_of(std::as_writable_bytes(std::span(text)));
    const auto got = disk_->read(io_, {at, length}, Iovec(&slice, 1));
    EXPECT_TRUE(got) << text_of(got.error());
    return text;
  }
  void expect_clean() {
    const auto report = disks_->check(io_, false);
    ASSERT_TRUE(report) << text_of(report.error());
    for (const std::string& finding : report->findings) ADD_FAILURE() << finding;
  }

  uint64_t pool_bytes_ = 16 * kMiB;
  BlockingIo io_;
  std::string directory_, path_;
  std::unique_ptr<store::Pool> pool_;
  std::unique_ptr<Disks> disks_;
  std::shared_ptr<BlockDevice> disk_;
};

}  // namespace firn::disk
