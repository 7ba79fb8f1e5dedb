// SPDX-License-Identifier: Apache-2.0
// Damaged and hostile pools, on real files: each gets a clear error that names the object, and what
// is not damaged goes on (P3, P7).
#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <functional>

#include "disk/disks.h"
#include "format/catalog.h"
#include "format/data_label.h"
#include "format/superblock.h"
#include "io/blocking_io.h"
#include "store/blocks.h"
#include "store/pages.h"

namespace firn::disk {
namespace {

using format::PageNo;
using format::PoolRoot;
using format::Superblock;
using format::Tree;
using store::PageKind;
using store::PageRef;

class DamageTest : public testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/firn-damage-XXXXXX";
    ASSERT_NE(mkdtemp(name), nullptr);
    directory_ = name;
    path_ = directory_ + "/pool";
    make_pool(path_);
    open();
    for (const char* disk : {"a", "b"}) {
      ASSERT_TRUE(disks_->create(io_, disk, 16 * kGiB));
      write(disk, 0, std::string(disk) + " at 0");
      write(disk, 9 * kGiB, std::string(disk) + " at 9 GiB");
    }
    ASSERT_TRUE(pool_->flush(io_));
    close();
  }
  void TearDown() override {
    close();
    std::filesystem::remove_all(directory_);
  }
  void make_pool(const std::string& path) {
    const auto made = store::Pool::create(io_, path, {.bytes = 16 * kMiB, .journal_bytes = kMiB});
    ASSERT_TRUE(made) << text_of(made.error());
  }

  // Errors of either opening are the pool's to tell.
  Result<void> try_open(bool read_only = false) {
    pool_ = TRY(store::Pool::open(io_, path_, {.background = false, .read_only = read_only}));
    auto disks = Disks::open(io_, *pool_);
    if (!disks) {
      abandon();
      return disks.error();
    }
    disks_ = disks.take();
    return ok;
  }
  void open() {
    const auto opened = try_open();
    ASSERT_TRUE(opened) << text_of(opened.error());
  }
  void close() {
    disks_.reset();
    if (pool_ != nullptr) {
      const auto closed = pool_->close(io_);
      EXPECT_TRUE(closed) << text_of(closed.error());
    }
    pool_.reset();
  }
  // As kill -9 would.
  void abandon() {
    disks_.reset();
    pool_.reset();
  }
  void expect_refused(Errc code, const std::string& part) {
    const auto opened = try_open();
    ASSERT_FALSE(opened) << part;
    EXPECT_EQ(name_of(opened.error().code), name_of(code)) << text_of(opened.error());
    EXPECT_NE(text_of(opened.error()).find(part), std::string_view::npos)
        << text_of(opened.error());
  }
  void expect_whole(const char* disk) {
    EXPECT_EQ(*read(disk, 0, 6), std::string(disk) + " at 0");
    EXPECT_EQ(*read(disk, 9 * kGiB, 10), std::string(disk) + " at 9 GiB");
  }

  Result<void> try_write(const char* name, uint64_t at, const std::string& text) {
    const auto disk = TRY(disks_->attach(io_, name));
    const ::iovec slice = slice_of(std::as_bytes(std::span(text)));
    return disk->write(io_, {at, text.size()}, Iovec(&slice, 1), {});
  }
  void write(const char* name, uint64_t at, const std::string& text) {
    const auto wrote = try_write(name, at, text);
    ASSERT_TRUE(wrote) << text_of(wrote.error());
  }
  Result<std::string> read(const char* name, uint64_t at, size_t length) {
    const auto disk = TRY(disks_->attach(io_, name));
    std::string text(length, '?');
    const ::iovec slice = slice_of(std::as_writable_bytes(std::span(text)));
    TRY(disk->read(io_, {at, length}, Iovec(&slice, 1)));
    return text;
  }
  void expect_unreadable(const char* name, uint64_t at, PageNo page) {
    const auto got = read(name, at, 1);
    ASSERT_FALSE(got);
    EXPECT_EQ(errno_of(got.error().code), EIO);
    EXPECT_NE(text_of(got.error()).find(fmt::format("metadata page {} ", page)),
              std::string_view::npos)
        << text_of(got.error());
  }

  // --- behind the pool's back
  void flip(const char* file, uint64_t at) {
    std::fstream stream(path_ + "/" + file, std::ios::in | std::ios::out | std::ios::binary);
    stream.seekg(static_cast<std::streamoff>(at));
    const int byte = stream.get();
    stream.seekp(static_cast<std::streamoff>(at));
    stream.put(static_cast<char>(byte ^ 0x10));
    stream.close();
    ASSERT_TRUE(stream.good()) << file;
  }
  void flip_page(PageNo page) { flip("meta", page * kPageBytes + 1000); }
  void truncate(const char* file, uint64_t bytes) {
    std::filesystem::resize_file(path_ + "/" + file, bytes);
  }
  // What another version would have written: both copies, under right checksums.
  void edit_superblock(const std::function<void(Superblock&)>& change) {
    std::fstream stream(path_ + "/superblock", std::ios::in | std::ios::out | std::ios::binary);
    for (uint16_t slot = 0; slot < 2; ++slot) {
      Superblock superblock;
      stream.seekg(static_cast<std::streamoff>(slot * format::kSuperblockStride));
      stream.read(reinterpret_cast<char*>(&superblock), sizeof superblock);
      change(superblock);
      superblock.crc = crc32c(view_of(superblock).subspan(12));
      stream.seekp(static_cast<std::streamoff>(slot * format::kSuperblockStride));
      stream.write(reinterpret_cast<const char*>(&superblock), sizeof superblock);
    }
    ASSERT_TRUE(stream.good());
  }
  // What a hostile author would have written: page content under right checksums. The pool only.
  void edit_pages(const std::function<void(store::PageStore&)>& change) {
    auto pool = store::Pool::open(io_, path_, {.background = false});
    ASSERT_TRUE(pool) << text_of(pool.error());
    change((*pool)->pages());
    ASSERT_TRUE((*pool)->close(io_));
  }
  void edit_root(const std::function<void(PoolRoot&)>& change) {
    edit_pages([&](store::PageStore& pages) {
      const PageRef page = pages.find(format::kRootPage, PageKind::pool_root);
      auto root = load<PoolRoot>(page.view());
      change(root);
      pages.set_bytes(page, 0, view_of(root));
    });
  }
  void edit_record(
      uint64_t number,
      const std::function<void(std::array<std::byte, format::kRecordBytes>&)>& change) {
    edit_pages([&](store::PageStore& pages) {
      const PageRef page =
          pages.get(io_, page_of(pages, PageKind::catalog, 0), PageKind::catalog).take();
      std::array<std::byte, format::kRecordBytes> record;
      std::ranges::copy(page.view().subspan(number * record.size(), record.size()), record.begin());
      change(record);
      pages.set_bytes(page, number * record.size(), record);
    });
  }
  std::array<std::byte, format::kRecordBytes> record(uint64_t number) {
    std::array<std::byte, format::kRecordBytes> copy;
    edit_record(number, [&](auto& bytes) { copy = bytes; });
    return copy;
  }
  static PageNo page_of(const store::PageStore& pages, PageKind kind, uint32_t family,
                        int nth = 0) {
    for (PageNo no = 0; no < pages.groups() * format::kGroupPages; ++no) {
      if (format::is_info_page(no)) continue;
      const format::PageInfo info = pages.info(no);
      if (static_cast<PageKind>(info.kind) == kind && info.family == family && nth-- == 0)
        return no;
    }
    ADD_FAILURE() << "no such page";
    return 0;
  }
  PageNo page_of(PageKind kind, uint32_t family, int nth = 0) {
    PageNo page = 0;
    edit_pages([&](store::PageStore& pages) { page = page_of(pages, kind, family, nth); });
    return page;
  }

  BlockingIo io_;
  std::string directory_, path_;
  std::unique_ptr<store::Pool> pool_;
  std::unique_ptr<Disks> disks_;
};

// --- superblock

TEST_F(DamageTest, either_copy_of_the_superblock_serves_alone) {
  for (const uint64_t copy : {0U, 1U}) {
    flip("superblock", copy * 4096 + 70);
    open();
    expect_whole("a");
    close();  // Writes both again.
  }
  flip("superblock", 70);
  flip("superblock", 4096 + 70);
  expect_refused(Errc::corrupt, "superblock copy");
}

TEST_F(DamageTest, superblocks_of_later_versions) {
  edit_superblock([](Superblock& s) { s.version = 2; });
  expect_refused(Errc::too_new, "format version 2");
  edit_superblock([](Superblock& s) { s.version = 1, s.incompat = 4; });
  expect_refused(Errc::too_new, "incompatible features 0x4");
  edit_superblock([](Superblock& s) { s.incompat = 0, s.ro_compat = 8; });
  expect_refused(Errc::too_new, "features 0x8 that this version may only read");
  const auto opened = try_open(true);
  ASSERT_TRUE(opened) << text_of(opened.error());
  expect_whole("a");
  EXPECT_EQ(disks_->check(io_, true).error().code, Errc::invalid) << "open to look only";
}

TEST_F(DamageTest, what_an_unknown_feature_keeps_is_not_repaired_away) {
  edit_superblock([](Superblock& s) { s.compat = 2; });
  open();
  expect_whole("a");
  EXPECT_TRUE(disks_->check(io_, false)->clean());
  const auto repaired = disks_->check(io_, true);
  ASSERT_FALSE(repaired);
  EXPECT_EQ(repaired.error().code, Errc::too_new);
  EXPECT_NE(text_of(repaired.error()).find("features 0x2"), std::string_view::npos);
}

// --- files

TEST_F(DamageTest, truncated_files_are_named) {
  truncate("journal", 4096);
  expect_refused(Errc::corrupt, "/journal' has 4096 bytes");
  truncate("journal", kMiB);  // Zeroes: closed, it was void.
  truncate("data", 5 * kMiB);
  expect_refused(Errc::corrupt, "its data file has 5242880 bytes, 16 storage blocks need");
  truncate("data", 1000);
  expect_refused(Errc::corrupt, "less than its label area");
  truncate("data", 0);
  expect_refused(Errc::corrupt, "less than its label area");
}

TEST_F(DamageTest, a_truncated_meta_is_named) {
  truncate("meta", kMiB / 2);
  expect_refused(Errc::corrupt, "/meta' has 524288 bytes");
  truncate("meta", 0);
  expect_refused(Errc::corrupt, "/meta' has 0 bytes");
}

TEST_F(DamageTest, the_data_of_another_pool_is_refused) {
  make_pool(directory_ + "/other");
  std::filesystem::remove(path_ + "/data");
  std::filesystem::create_symlink(directory_ + "/other/data", path_ + "/data");
  const auto opened = try_open();
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().code, Errc::corrupt);
  const std::string_view text = text_of(opened.error());
  EXPECT_NE(text.find("belongs to another pool: its label says "), std::string_view::npos) << text;
  std::filesystem::remove(path_ + "/data");
  std::ofstream(path_ + "/data").close();
  truncate("data", 17 * kMiB);
  expect_refused(Errc::corrupt, "has no label");
}

TEST_F(DamageTest, a_rotten_label_is_named) {
  flip("data", 20);
  expect_refused(Errc::corrupt, "data label: crc");
}

// --- pages

TEST_F(DamageTest, P3_a_rotten_map_page_is_contained) {
  const PageNo page = page_of(PageKind::map, 1);
  flip_page(page);
  open();
  expect_unreadable("a", 0, page);
  const auto wrote = try_write("a", 0, "x");
  ASSERT_FALSE(wrote);
  EXPECT_EQ(errno_of(wrote.error().code), EIO);
  EXPECT_EQ(*read("a", 9 * kGiB, 10), "a at 9 GiB") << "other ranges of the disk work";
  write("a", 9 * kGiB + kMiB, "more");
  expect_whole("b");
  write("b", kMiB, "more");
  ASSERT_TRUE(pool_->flush(io_));
  const auto report = disks_->check(io_, true);
  ASSERT_TRUE(report) << text_of(report.error());
  EXPECT_EQ(report->corrupt_pages, 1U);
  EXPECT_EQ(report->repaired, 0U) << "nobody knows what it owned";
  EXPECT_NE(report->findings.at(0).find(fmt::format("page {}", page)), std::string::npos);
}

TEST_F(DamageTest, P3_a_rotten_index_page_is_contained_in_its_disk) {
  const PageNo page = page_of(PageKind::index, 1);
  flip_page(page);
  open();
  expect_unreadable("a", 0, page);
  expect_whole("b");
  write("b", kMiB, "more");
  EXPECT_EQ(disks_->check(io_, false)->corrupt_pages, 1U);
}

TEST_F(DamageTest, rot_in_the_pool_s_own_pages_is_named) {
  for (const PageKind kind : {PageKind::block_table, PageKind::catalog, PageKind::pool_root}) {
    const PageNo page = page_of(kind, 0);
    flip_page(page);
    expect_refused(Errc::corrupt, fmt::format("metadata page {} ", page));
    flip_page(page);
  }
  flip_page(0);
  expect_refused(Errc::corrupt, "metadata page 0: page-info crc");
  flip_page(0);
  open();
  expect_whole("a");
}

// --- journal

TEST_F(DamageTest, P3_a_lost_transaction_is_named) {
  open();
  for (int i = 0; i < 4; ++i) {
    write("a", kMiB + static_cast<uint64_t>(i) * kMiB, "acknowledged");
    ASSERT_TRUE(pool_->flush(io_));
  }
  abandon();
  flip("journal", 2 * 4096 + 100);  // The third.
  expect_refused(Errc::corrupt, "the journal lost transaction 3 although 4 is there");
  flip("journal", 2 * 4096 + 100);
  open();
  EXPECT_EQ(pool_->info().replayed_transactions, 4U);
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(*read("a", kMiB + static_cast<uint64_t>(i) * kMiB, 12), "acknowledged");
  }
  EXPECT_TRUE(disks_->check(io_, false)->clean());
}

// --- hostile content under right checksums

TEST_F(DamageTest, sizes_are_bounded_by_the_files_before_anything_is_allocated) {
  const auto with = [&](const std::function<void(PoolRoot&)>& change, const char* part) {
    PoolRoot kept;
    edit_root([&](PoolRoot& root) {
      kept = root;
      change(root);
    });
    expect_refused(Errc::corrupt, part);
    std::filesystem::copy_file(directory_ + "/meta", path_ + "/meta",
                               std::filesystem::copy_options::overwrite_existing);
  };
  std::filesystem::copy_file(path_ + "/meta", directory_ + "/meta");
  with([](PoolRoot& r) { r.blocks = format::kBlocksMax; }, "68719476736 storage blocks need");
  with([](PoolRoot& r) { r.groups = format::kPageNoMax / 256; }, "page groups of the pool root");
  with([](PoolRoot& r) { r.groups = 1000; }, "the 1000 page groups of the pool root");
}

TEST_F(DamageTest, names_and_layers_that_are_there_twice_are_named) {
  // Records in order of creation: layer 1, disk a, layer 2, disk b.
  const auto a = record(1);
  edit_record(3, [&](auto& bytes) { bytes = a; });
  expect_refused(Errc::corrupt, "disk 'a' is there twice");
  const auto layer = record(0);
  edit_record(3, [&](auto& bytes) { bytes = layer; });
  expect_refused(Errc::corrupt, "layer 1 is there twice");
  edit_record(3, [&](auto& bytes) {
    bytes = a;
    bytes[offsetof(format::NameRecord, name)] = std::byte{'z'};
  });
  expect_refused(Errc::corrupt, "'a' and 'z' both have layer 1");
}

TEST_F(DamageTest, catalog_records_of_other_versions) {
  edit_record(3, [](auto& bytes) { bytes[0] = std::byte{3}; });
  expect_refused(Errc::corrupt, "snapshot 'b' does not say of which disk");
  edit_record(3, [](auto& bytes) { bytes[0] = std::byte{1}; });
  edit_record(2, [](auto& bytes) { bytes[offsetof(format::LayerRecord, layer)] = std::byte{77}; });
  expect_refused(Errc::corrupt, "layer 77 of family 2 has an id that was never given out");
}

TEST_F(DamageTest, an_unknown_field_of_a_layer_survives_everything_that_changes_the_layer) {
  const std::string_view field("\x08\x00\x03\x00new", 7);
  edit_record(0, [&](auto& bytes) {
    auto layer = load<format::LayerRecord>(bytes);
    layer.tail_bytes = static_cast<uint16_t>(field.size());
    std::memcpy(layer.tail.data(), field.data(), field.size());
    std::ranges::copy(view_of(layer), bytes.begin());
  });
  open();
  write("a", 5 * kMiB, std::string(100000, 'x'));
  ASSERT_TRUE(disks_->resize(io_, "a", 64 * kTiB));
  write("a", 60 * kTiB, "raises the map");
  ASSERT_TRUE(disks_->resize(io_, "a", 4 * kMiB));
  close();
  const auto layer = load<format::LayerRecord>(record(0));
  EXPECT_EQ(layer.tail_bytes, field.size());
  EXPECT_EQ(std::memcmp(layer.tail.data(), field.data(), field.size()), 0);
  EXPECT_EQ(layer.bytes, 4 * kMiB);
}

TEST_F(DamageTest, ids_run_out_with_an_error_and_never_wrap) {
  edit_root([](PoolRoot& root) { root.next_family = format::kFamiliesReserved - 1; });
  open();
  ASSERT_TRUE(disks_->create(io_, "last", kMiB));
  const auto beyond = disks_->create(io_, "beyond", kMiB);
  ASSERT_FALSE(beyond);
  EXPECT_EQ(beyond.error().code, Errc::no_space);
  EXPECT_NE(text_of(beyond.error()).find("all its ids: 4294967039 families"),
            std::string_view::npos)
      << text_of(beyond.error());
  ASSERT_TRUE(disks_->remove(io_, "last"));
  close();
  edit_root([](PoolRoot& root) {
    root.next_family = 100;
    root.next_layer = UINT32_MAX - 1;
  });
  open();
  ASSERT_TRUE(disks_->create(io_, "last-layer", kMiB));
  EXPECT_EQ(disks_->create(io_, "beyond", kMiB).error().code, Errc::no_space);
  ASSERT_TRUE(disks_->remove(io_, "last-layer"));
  EXPECT_EQ(disks_->create(io_, "beyond", kMiB).error().code, Errc::no_space);
  EXPECT_TRUE(disks_->check(io_, false)->clean());
}

TEST_F(DamageTest, a_map_that_leads_back_to_itself_or_elsewhere_is_refused) {
  PageNo loop = 0;
  edit_pages([&](store::PageStore& pages) {
    loop = page_of(pages, PageKind::index, 1);
    const PageRef page = pages.get(io_, loop, PageKind::index).take();
    pages.set_word(page, 0, format::encode(format::IndexEntry{loop, true}));
  });
  open();
  expect_unreadable("a", 0, loop);
  expect_whole("b");
  const auto report = disks_->check(io_, false);
  ASSERT_TRUE(report) << text_of(report.error());
  EXPECT_FALSE(report->clean());
  close();
  edit_pages([&](store::PageStore& pages) {
    const PageRef page = pages.get(io_, loop, PageKind::index).take();
    pages.set_word(page, 0, format::encode(format::IndexEntry{format::kRootPage, true}));
  });
  open();
  expect_unreadable("a", 0, format::kRootPage);  // In memory, but not what the map takes it for.
  expect_whole("b");
}

TEST_F(DamageTest, a_table_whose_entries_all_lead_to_one_page_is_refused_in_time) {
  edit_pages([&](store::PageStore& pages) {
    const PageNo leaf = page_of(pages, PageKind::block_table, 0);
    PageNo below = leaf;
    for (uint8_t level = 1; level <= 4; ++level) {
      const PageRef page = pages.born(pages.reserve(io_).take(), PageKind::index, level, 0);
      for (size_t i = 0; i < format::kFanout; ++i) {
        pages.set_word(page, i, format::encode(format::IndexEntry{below, true}));
      }
      below = page.no();
    }
    const PageRef root = pages.find(format::kRootPage, PageKind::pool_root);
    format::TreeRoot tree;
    tree.page = below;
    tree.level = std::byte{4};
    pages.set_bytes(root, format::offset_of(Tree::block_table), view_of(tree));
  });
  const auto opened = try_open();
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().code, Errc::corrupt);
}

// --- creating and growing

TEST_F(DamageTest, sizes_beyond_what_a_pool_can_address_are_refused) {
  const auto refused = [](const Result<void>& result, const char* part) {
    ASSERT_FALSE(result);
    EXPECT_EQ(result.error().code, Errc::invalid);
    EXPECT_NE(text_of(result.error()).find(part), std::string_view::npos)
        << text_of(result.error());
  };
  const std::string other = directory_ + "/other";
  refused(store::Pool::create(io_, other, {.bytes = UINT64_MAX}), "at most 64 PiB");
  refused(store::Pool::create(io_, other, {.bytes = kMiB - 1}), "less than one storage block");
  refused(store::Pool::create(io_, other, {.journal_bytes = UINT64_MAX}), "more than 2^32 slots");
  refused(store::Pool::create(io_, other, {.journal_slot_bytes = 1000}), "slots of 1000 bytes");
  EXPECT_FALSE(std::filesystem::exists(other + "/lock")) << "what failed can be tried again";
  make_pool(other);
  open();
  refused(pool_->grow(io_, UINT64_MAX), "at most 64 PiB");
  refused(pool_->grow(io_, kMiB), "cannot shrink");
  ASSERT_TRUE(pool_->grow(io_, 20 * kMiB + 5));
  EXPECT_EQ(pool_->info().capacity_bytes, 20 * kMiB);
  EXPECT_EQ(std::filesystem::file_size(path_ + "/data"), 21 * kMiB);
  close();
  open();
  EXPECT_EQ(pool_->info().capacity_bytes, 20 * kMiB);
}

TEST_F(DamageTest, a_device_gives_what_is_left_behind_its_label) {
  const std::string device = directory_ + "/device";
  std::ofstream(device).close();
  std::filesystem::resize_file(device, 9 * kMiB + 4096);
  const std::string other = directory_ + "/other";
  ASSERT_TRUE(store::Pool::create(io_, other, {.data_path = device, .journal_bytes = kMiB}));
  auto pool = store::Pool::open(io_, other, {.background = false});
  ASSERT_TRUE(pool) << text_of(pool.error());
  EXPECT_EQ((*pool)->info().capacity_bytes, 8 * kMiB);
  ASSERT_TRUE((*pool)->close(io_));
}

}  // namespace
}  // namespace firn::disk
