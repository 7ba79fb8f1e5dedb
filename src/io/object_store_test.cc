// SPDX-License-Identifier: Apache-2.0
// Object stores of this host, and the rule of keys.
#include "io/object_store.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <array>
#include <filesystem>
#include <fstream>

#include "io/blocking_io.h"
#include "io/directory_store.h"
#include "io/fiber_io.h"
#include "io/io_test_dir.h"
#include "io/object_store_conformance.h"
#include "io/open_store.h"

namespace firn {
namespace {

void with_blocking(const std::function<void(Io&, ObjectStore&)>& what) {
  TestDir dir;
  BlockingIo io;
  auto store = DirectoryStore::open(io, dir.path());
  ASSERT_TRUE(store) << text_of(store.error());
  what(io, **store);
}

void with_fibers(const std::function<void(Io&, ObjectStore&)>& what) {
  TestDir dir;
  auto io = FiberIo::make().take();
  io->run([&] {
    auto store = DirectoryStore::open(*io, dir.path());
    ASSERT_TRUE(store) << text_of(store.error());
    what(*io, **store);
  });
}

INSTANTIATE_TEST_SUITE_P(Directory, ObjectStores,
                         ::testing::Values(StoreWorld{"blocking", with_blocking, false},
                                           StoreWorld{"fibers", with_fibers}),
                         name_of_world);

// The store that FIRN_TEST_STORE names, a prefix of its own for each test: tests/s3_store.sh.
void with_named(const std::string& url, const std::function<void(Io&, ObjectStore&)>& what) {
  auto io = FiberIo::make().take();
  io->run([&] {
    const size_t question = std::min(url.find('?'), url.size());
    const std::string own =
        fmt::format("{}/{:016x}{}", url.substr(0, question), io->random(), url.substr(question));
    auto store = open_store(*io, own);
    ASSERT_TRUE(store) << text_of(store.error());
    what(*io, **store);
    const auto left = (*store)->list(*io, "", "", 1000);
    ASSERT_TRUE(left) << text_of(left.error());
    for (const ObjectInfo& info : *left) EXPECT_GOOD((*store)->remove(*io, info.key));
  });
}

std::vector<StoreWorld> named_worlds() {
  std::vector<StoreWorld> worlds;
  if (const char* url = std::getenv("FIRN_TEST_STORE"); url != nullptr) {
    worlds.push_back({"named", [url](const std::function<void(Io&, ObjectStore&)>& what) {
                        with_named(url, what);
                      }});
  }
  return worlds;
}

GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(ObjectStores);
INSTANTIATE_TEST_SUITE_P(Named, ObjectStores, ::testing::ValuesIn(named_worlds()), name_of_world);

TEST(ObjectKey, is_of_few_characters_and_no_odd_parts) {
  for (const char* good : {"a", "A/b/9", "d/00.=_-", "...", "a/.b", "-"}) {
    EXPECT_TRUE(is_object_key(good)) << good;
  }
  for (const char* bad : {"", "/", "/a", "a/", "a//b", ".", "..", "a/..", "./a", "a b", "a~", "ü",
                          "a\n", "a\\b", "a?b", "a%20"}) {
    EXPECT_FALSE(is_object_key(bad)) << bad;
  }
  EXPECT_TRUE(is_object_key(std::string(512, 'k')));
  EXPECT_FALSE(is_object_key(std::string(513, 'k')));
}

class DirectoryStores : public ::testing::Test {
 protected:
  std::unique_ptr<DirectoryStore> open() {
    auto store = DirectoryStore::open(io_, dir_.path());
    EXPECT_TRUE(store) << text_of(store.error());
    return store.take();
  }
  Result<void> put(ObjectStore& store, const std::string& key, bool once = false) {
    const std::vector<std::byte> body(100, std::byte{1});
    const ::iovec slice = slice_of(View(body));
    return store.put(io_, key, Iovec(&slice, 1), {.once = once});
  }
  size_t temporaries() const {
    size_t count = 0;
    for (const auto& entry : std::filesystem::directory_iterator(dir_ / "~tmp")) {
      count += entry.exists() ? 1 : 0;
    }
    return count;
  }

  TestDir dir_;
  BlockingIo io_;
};

TEST_F(DirectoryStores, keep_objects_as_plain_files) {
  const auto store = open();
  ASSERT_TRUE(put(*store, "a/b/c"));
  EXPECT_EQ(std::filesystem::file_size(dir_ / "a/b/c"), 100u);
  EXPECT_EQ(temporaries(), 0u);
  ASSERT_TRUE(store->remove(io_, "a/b/c"));
  EXPECT_FALSE(std::filesystem::exists(dir_ / "a")) << "empty folders stay";
}

TEST_F(DirectoryStores, are_not_made_by_chance) {
  const auto none = DirectoryStore::open(io_, dir_ / "new");
  ASSERT_FALSE(none);
  EXPECT_EQ(none.error().code, Errc::not_found);
  EXPECT_TRUE(DirectoryStore::open(io_, dir_ / "new", {.create = true}));
  EXPECT_TRUE(DirectoryStore::open(io_, dir_ / "new", {.create = true}));
  EXPECT_FALSE(DirectoryStore::open(io_, dir_ / "x/new", {.create = true}));
}

TEST_F(DirectoryStores, clear_away_what_the_dead_left_and_nothing_else) {
  ASSERT_TRUE(put(*open(), "k"));
  std::ofstream(dir_ / "~tmp/dead") << "half a body";
  std::ofstream(dir_ / "~tmp/alive") << "half a body";
  const Fd alive(::open((dir_ / "~tmp/alive").c_str(), O_RDWR | O_CLOEXEC));
  ASSERT_EQ(::flock(alive.get(), LOCK_EX | LOCK_NB), 0);
  const auto store = open();
  EXPECT_FALSE(std::filesystem::exists(dir_ / "~tmp/dead"));
  EXPECT_TRUE(std::filesystem::exists(dir_ / "~tmp/alive"));
  const auto found = store->list(io_, "", "", 10);
  ASSERT_TRUE(found);
  ASSERT_EQ(found->size(), 1u);
  EXPECT_EQ(found->front().key, "k");
}

TEST_F(DirectoryStores, take_no_links_pipes_or_strange_names_for_objects) {
  const auto store = open();
  ASSERT_TRUE(put(*store, "k"));
  std::filesystem::create_symlink("k", dir_ / "link");
  ASSERT_EQ(::mkfifo((dir_ / "pipe").c_str(), 0600), 0);
  std::ofstream(dir_ / "strange name") << "x";
  std::filesystem::create_directory(dir_ / "folder");
  const auto found = store->list(io_, "", "", 10);
  ASSERT_TRUE(found);
  EXPECT_EQ(found->size(), 1u);
  for (const char* key : {"link", "pipe", "folder", "k/x"}) {
    std::array<std::byte, 10> room{};
    EXPECT_EQ(store->get(io_, key, 0, room).error().code, Errc::not_found) << key;
    EXPECT_EQ(store->head(io_, key).error().code, Errc::not_found) << key;
  }
}

TEST_F(DirectoryStores, refuse_an_object_that_is_a_folder) {
  const auto store = open();
  ASSERT_TRUE(put(*store, "a/b"));
  EXPECT_EQ(put(*store, "a").error().code, Errc::invalid);
  EXPECT_EQ(put(*store, "a/b/c").error().code, Errc::invalid);
  EXPECT_EQ(put(*store, "a/b/c", true).error().code, Errc::invalid);
  EXPECT_TRUE(store->remove(io_, "a"));
  EXPECT_TRUE(store->head(io_, "a/b"));
  EXPECT_EQ(temporaries(), 0u);
}

}  // namespace
}  // namespace firn
