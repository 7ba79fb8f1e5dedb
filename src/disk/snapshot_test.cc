// SPDX-License-Identifier: Apache-2.0
#include <numeric>

#include "base/prng.h"
#include "disk/pool_fixture.h"

namespace firn::disk {
namespace {

class Snapshot : public PoolFixture {
 protected:
  void SetUp() override {
    PoolFixture::SetUp();
    ASSERT_TRUE(disks_->create(io_, "a", kGiB));
    attach("a");
  }
  void snapshot(const char* name) {
    const auto made = disks_->snapshot(io_, "a", name);
    ASSERT_TRUE(made) << text_of(made.error());
  }
  void remove(const char* name) {
    const auto gone = disks_->remove_snapshot(io_, "a", name);
    ASSERT_TRUE(gone) << text_of(gone.error());
    const auto swept = disks_->sweep(io_);
    ASSERT_TRUE(swept) << text_of(swept.error());
  }
  std::string read_of(const std::string& name, uint64_t at, size_t length) {
    auto device = disks_->attach(io_, name);
    EXPECT_TRUE(device) << text_of(device.error());
    std::string text(length, '?');
    const ::iovec slice = slice_of(std::as_writable_bytes(std::span(text)));
    EXPECT_TRUE((*device)->read(io_, {at, length}, Iovec(&slice, 1)));
    return text;
  }
  uint64_t used() const { return pool_->info().used_bytes; }
  Errc code(const Result<void>& result) { return result ? Errc{} : result.error().code; }
};

TEST_F(Snapshot, shows_what_was_there_and_the_disk_goes_on) {
  write(0, std::string(8192, 'a'));
  write(5 * kMiB, "before");
  snapshot("s");
  write(4096, std::string(4096, 'b'));
  write(5 * kMiB, "after!");
  write(9 * kMiB, "new");
  EXPECT_EQ(read_of("a@s", 4096, 4), "aaaa");
  EXPECT_EQ(read_of("a@s", 5 * kMiB, 6), "before");
  EXPECT_EQ(read_of("a@s", 9 * kMiB, 3), std::string(3, '\0'));
  EXPECT_EQ(read(4095, 3), "abb");
  EXPECT_EQ(read(5 * kMiB, 6), "after!");
  expect_clean();
  close();
  open();
  attach("a");
  EXPECT_EQ(read_of("a@s", 4096, 4), "aaaa");
  EXPECT_EQ(read(4095, 3), "abb");
  EXPECT_EQ(read(9 * kMiB, 3), "new");
  expect_clean();
}

TEST_F(Snapshot, a_first_touch_takes_one_grain_and_copies_no_neighbours) {
  write(0, std::string(kMiB, 'a'));
  snapshot("s");
  const uint64_t before = used();
  write(8192, std::string(4096, 'b'));
  EXPECT_EQ(used() - before, kGrainBytes);
  const uint64_t transactions = pool_->info().transactions;
  ASSERT_TRUE(disk_->flush(io_));
  EXPECT_EQ(pool_->info().transactions, transactions + 1);
  write(8192, std::string(4096, 'c'));  // Own by now: in place, no metadata.
  ASSERT_TRUE(disk_->flush(io_));
  EXPECT_EQ(pool_->info().transactions, transactions + 1);
  EXPECT_EQ(used() - before, kGrainBytes);
}

TEST_F(Snapshot, random_first_touches_of_a_clone_fill_one_storage_block) {
  for (uint64_t i = 0; i < 4; ++i) write(i * kMiB, std::string(kMiB, 'a'));
  snapshot("s");
  ASSERT_TRUE(disks_->clone(io_, "a", "s", "c"));
  disk_.reset();
  attach("c");
  const uint64_t before = pool_->info().allocated_bytes;
  Prng prng(1);
  std::vector<uint64_t> order(1024);
  std::iota(order.begin(), order.end(), 0);
  for (size_t i = 0; i < 256; ++i) {
    std::swap(order[i], order[i + prng.below(order.size() - i)]);
    write(order[i] * kGrainBytes, std::string(4096, 'c'));
  }
  EXPECT_EQ(pool_->info().allocated_bytes - before, kMiB);
  expect_clean();
}

TEST_F(Snapshot, is_read_only) {
  snapshot("s");
  auto device = disks_->attach(io_, "a@s");
  ASSERT_TRUE(device);
  EXPECT_TRUE((*device)->geometry().read_only);
  const std::string text = "x";
  const ::iovec slice = slice_of(std::as_bytes(std::span(text)));
  EXPECT_EQ(code((*device)->write(io_, {0, 1}, Iovec(&slice, 1), {})), Errc::invalid);
  EXPECT_EQ(code((*device)->discard(io_, {0, 4096})), Errc::invalid);
  EXPECT_EQ(code((*device)->zero(io_, {0, 4096}, {})), Errc::invalid);
}

TEST_F(Snapshot, a_discard_hides_what_the_snapshot_keeps) {
  write(0, std::string(3 * kMiB, 'a'));
  snapshot("s");
  ASSERT_TRUE(disk_->discard(io_, {kMiB, kMiB}));
  EXPECT_EQ(read(kMiB - 1, 3), std::string("a\0\0", 3));
  EXPECT_EQ(read_of("a@s", kMiB, 2), "aa");
  remove("s");  // Zero over data: the data goes.
  EXPECT_EQ(read(kMiB - 1, 3), std::string("a\0\0", 3));
  EXPECT_EQ(used(), 2 * kMiB);
  EXPECT_EQ(disks_->info("a")->layers, 1U);
  expect_clean();
}

TEST_F(Snapshot, deleting_moves_references_and_frees_what_is_superseded) {
  write(0, std::string(2 * kMiB, 'a'));
  write(kMiB * 512, std::string(kMiB, 'f'));
  snapshot("s");
  write(kMiB, std::string(kMiB, 'b'));
  EXPECT_EQ(used(), 4 * kMiB);
  remove("s");
  EXPECT_EQ(used(), 3 * kMiB);
  EXPECT_EQ(read(kMiB - 1, 2), "ab");
  EXPECT_EQ(read(kMiB * 512, 1), "f");
  EXPECT_EQ(disks_->info("a")->mapped_bytes, 3 * kMiB);
  EXPECT_EQ(disks_->info("a")->layers, 1U);
  expect_clean();
  close();
  open();
  attach("a");
  EXPECT_EQ(read(kMiB - 1, 2), "ab");
  expect_clean();
  write(kMiB * 512, "own");  // In place again.
  EXPECT_EQ(used(), 3 * kMiB);
}

TEST_F(Snapshot, in_any_order_middle_base_and_next_to_the_top) {
  const char* const names[] = {"s0", "s1", "s2", "s3"};
  for (size_t order = 0; order < 24; ++order) {
    std::vector<size_t> left = {0, 1, 2, 3};
    for (size_t i = 0; i < 4; ++i) {
      write(i * 8192, std::string(16384, static_cast<char>('a' + i)));
      write(700 * kMiB + i * kGrainBytes, std::string(4096, static_cast<char>('A' + i)));
      if (i == 2) {
        ASSERT_TRUE(disk_->discard(io_, {0, 8192}));
      }
      snapshot(names[i]);
    }
    write(4096, "top");
    const std::string now = read(0, 65536);
    for (size_t pick = order; !left.empty(); pick /= 4) {
      const size_t which = pick % left.size();
      remove(names[left[which]]);
      left.erase(left.begin() + static_cast<ptrdiff_t>(which));
      EXPECT_EQ(read(0, 65536), now);
      for (const size_t i : left) {
        EXPECT_EQ(read_of(std::string("a@") + names[i], i * 8192 + 8192, 2),
                  std::string(2, static_cast<char>('a' + i)));
      }
      expect_clean();
    }
    EXPECT_EQ(disks_->info("a")->layers, 1U);
    ASSERT_TRUE(disk_->discard(io_, {0, kGiB}));
    ASSERT_TRUE(disk_->flush(io_));
    EXPECT_EQ(used(), 0U);
  }
}

TEST_F(Snapshot, clones_stand_on_their_own) {
  write(0, std::string(kMiB, 'a'));
  snapshot("s");
  ASSERT_TRUE(disks_->clone(io_, "a", "s", "c"));
  ASSERT_TRUE(disks_->clone(io_, "a", "s", "d"));
  EXPECT_EQ(disks_->info("c")->origin, "a@s");
  EXPECT_EQ(disks_->info("c")->bytes, kGiB);
  EXPECT_EQ(used(), kMiB);
  disk_.reset();
  attach("c");
  write(0, "clone");
  ASSERT_TRUE(disks_->snapshot(io_, "c", "t"));
  ASSERT_TRUE(disks_->clone(io_, "c", "t", "e"));
  write(4096, "c only");
  EXPECT_EQ(read_of("a", 0, 5), "aaaaa");
  EXPECT_EQ(read_of("d", 4096, 5), "aaaaa");
  EXPECT_EQ(read_of("e", 0, 5), "clone");
  EXPECT_EQ(read_of("e", 4096, 5), "aaaaa");
  // The middle goes: its layer has several children and stays, hidden, until it has one.
  const auto snapshots = disks_->snapshots("a");
  ASSERT_EQ(snapshots->size(), 1U);
  EXPECT_EQ(snapshots->at(0).clones, (std::vector<std::string>{"d"}));
  remove("s");
  EXPECT_EQ(disks_->info("d")->layers, 2U);
  ASSERT_TRUE(disks_->remove(io_, "a", true));
  expect_clean();
  disk_.reset();
  ASSERT_TRUE(disks_->remove(io_, "c", true));
  expect_clean();
  EXPECT_EQ(read_of("d", 0, 5), "aaaaa");
  EXPECT_EQ(read_of("e", 0, 5), "clone");
  ASSERT_TRUE(disks_->remove(io_, "d", false));
  EXPECT_EQ(disks_->info("e")->layers, 1U);
  EXPECT_EQ(read_of("e", 4096, 5), "aaaaa");
  ASSERT_TRUE(disks_->remove(io_, "e", false));
  EXPECT_EQ(used(), 0U);
  EXPECT_EQ(pool_->info().metadata_pages, disks_->check(io_, false)->pages);
  expect_clean();
}

TEST_F(Snapshot, a_revert_goes_back_and_leaves_later_snapshots_beside_it) {
  write(0, "one");
  snapshot("s1");
  write(0, "two");
  snapshot("s2");
  write(0, "six");
  EXPECT_EQ(code(disks_->revert(io_, "a", "s1", false)), Errc::busy);
  ASSERT_TRUE(disks_->revert(io_, "a", "s1", true));
  ASSERT_TRUE(disks_->sweep(io_));
  EXPECT_EQ(read(0, 3), "one");
  EXPECT_EQ(read_of("a@s2", 0, 3), "two");
  EXPECT_FALSE(disks_->snapshot_info("a", "s2")->current);
  EXPECT_TRUE(disks_->snapshot_info("a", "s1")->current);
  expect_clean();
  write(4096, "beside");
  disk_.reset();
  ASSERT_TRUE(disks_->revert(io_, "a", "s2", false));
  ASSERT_TRUE(disks_->sweep(io_));
  attach("a");
  EXPECT_EQ(read(0, 3), "two");
  EXPECT_EQ(read(4096, 6), std::string(6, '\0'));
  remove("s1");
  remove("s2");
  EXPECT_EQ(read(0, 3), "two");
  EXPECT_EQ(used(), kGrainBytes);
  expect_clean();
}

TEST_F(Snapshot, bad_input_is_refused_and_named) {
  snapshot("s");
  EXPECT_EQ(code(disks_->snapshot(io_, "a", "s")), Errc::exists);
  EXPECT_EQ(code(disks_->snapshot(io_, "nobody", "s")), Errc::not_found);
  for (const char* const bad : {"", "x@y", "x/y", "-x", ".x", "a b"}) {
    EXPECT_EQ(code(disks_->snapshot(io_, "a", bad)), Errc::invalid) << bad;
    EXPECT_EQ(code(disks_->clone(io_, "a", "s", bad)), Errc::invalid) << bad;
  }
  EXPECT_EQ(code(disks_->clone(io_, "a", "nothing", "c")), Errc::not_found);
  EXPECT_EQ(code(disks_->clone(io_, "a", "s", "a")), Errc::exists);
  EXPECT_EQ(code(disks_->remove_snapshot(io_, "a", "nothing")), Errc::not_found);
  EXPECT_EQ(code(disks_->revert(io_, "a", "nothing", true)), Errc::not_found);
  EXPECT_EQ(code(disks_->remove(io_, "a", true)), Errc::busy);
  EXPECT_FALSE(disks_->attach(io_, "a@nothing"));
  EXPECT_FALSE(disks_->attach(io_, "a@s@s"));
  {
    auto held = disks_->attach(io_, "a@s");
    ASSERT_TRUE(held);
    const auto refused = disks_->remove_snapshot(io_, "a", "s");
    ASSERT_EQ(code(refused), Errc::busy);
    EXPECT_NE(std::string(text_of(refused.error())).find("a@s"), std::string::npos);
  }
  disk_.reset();
  EXPECT_EQ(code(disks_->remove(io_, "a", false)), Errc::busy);
  EXPECT_EQ(code(disks_->resize(io_, "a", kMiB)), Errc::invalid);  // Below its snapshot.
  EXPECT_TRUE(disks_->resize(io_, "a", 2 * kGiB));
}

TEST_F(Snapshot, sizes_differ_along_a_chain) {
  write(kGiB - 4096, std::string(4096, 'e'));
  snapshot("small");
  ASSERT_TRUE(disks_->resize(io_, "a", 600 * kGiB));  // Two levels more.
  write(599 * kGiB, "far");
  snapshot("large");
  write(kGiB - 4096, "over");
  EXPECT_EQ(disks_->snapshot_info("a", "small")->bytes, kGiB);
  remove("small");
  EXPECT_EQ(read(kGiB - 4096, 5), "overe");
  EXPECT_EQ(read_of("a@large", kGiB - 4096, 5), "eeeee");
  EXPECT_EQ(read_of("a@large", 599 * kGiB, 3), "far");
  remove("large");
  EXPECT_EQ(read(599 * kGiB, 3), "far");
  EXPECT_EQ(used(), 2 * kGrainBytes);
  expect_clean();
}

TEST_F(Snapshot, depth_costs_a_reader_nothing) {
  write(0, std::string(64 * 1024, 'a'));
  for (int i = 0; i < 300; ++i) {
    snapshot(("s" + std::to_string(i)).c_str());
    write(static_cast<uint64_t>(i % 16) * kGrainBytes, "x");
  }
  EXPECT_EQ(disks_->info("a")->layers, 301U);
  close();
  open();
  attach("a");
  const uint64_t before = pool_->info().page_reads;
  EXPECT_EQ(read(17 * kGrainBytes, 1), std::string(1, '\0'));
  EXPECT_LE(pool_->info().page_reads - before, 4U);  // Catalog page, root, index, leaf.
  // And consolidated again, oldest first and newest first.
  for (int i = 0; i < 150; ++i) {
    remove(("s" + std::to_string(i)).c_str());
    remove(("s" + std::to_string(299 - i)).c_str());
  }
  EXPECT_EQ(disks_->info("a")->layers, 1U);
  EXPECT_EQ(read(0, 2), "xa");
  EXPECT_EQ(used(), 64U * 1024);
  expect_clean();
}

TEST_F(Snapshot, a_hundred_clones_take_metadata_only) {
  write(0, std::string(4 * kMiB, 'a'));
  snapshot("s");
  const uint64_t pages = pool_->info().metadata_pages;
  for (int i = 0; i < 100; ++i) {
    ASSERT_TRUE(disks_->clone(io_, "a", "s", "c" + std::to_string(i)));
  }
  EXPECT_EQ(used(), 4 * kMiB);
  EXPECT_LE(pool_->info().metadata_pages - pages, 26U);  // 200 records of 512 bytes, and an index.
}

struct Runs : DiffSink {
  std::string text;
  bool add(DiffRun run) override {
    text += fmt::format("{}+{}{} ", run.at / kGrainBytes, run.length / kGrainBytes,
                        run.kind == Extent::data ? "d" : "z");
    return true;
  }
};

TEST_F(Snapshot, a_diff_is_exact) {
  write(0, std::string(kMiB, 'a'));
  snapshot("s1");
  write(8192, std::string(8192, 'b'));
  write(700 * kMiB, "far");
  ASSERT_TRUE(disk_->discard(io_, {kMiB / 2, 4096}));
  snapshot("s2");
  write(0, "live");
  const auto diff = [&](const char* a, const char* b, Range range = {0, kGiB}) {
    Runs runs;
    const auto done = disks_->diff(io_, a, b, range, runs);
    EXPECT_TRUE(done) << text_of(done.error());
    return runs.text;
  };
  EXPECT_EQ(diff("a@s1", "a@s2"), "2+2d 128+1z 179200+1d ");
  EXPECT_EQ(diff("a@s2", "a@s1"), "2+2d 128+1d 179200+1z ");
  EXPECT_EQ(diff("a@s2", "a"), "0+1d ");
  EXPECT_EQ(diff("a@s1", "a@s1"), "");
  EXPECT_EQ(diff("a@s1", "a@s2", {3 * kGrainBytes, 10 * kGrainBytes}), "3+1d ");
  remove("s1");
  EXPECT_EQ(diff("a@s2", "a"), "0+1d ");
}

}  // namespace
}  // namespace firn::disk
