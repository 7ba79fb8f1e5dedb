// SPDX-License-Identifier: Apache-2.0
// Whether a store keeps the contract of io/object_store.h. For tests: instantiate ObjectStores with
// the worlds to try. A store begins empty, and must be so quiet that nothing needs a second try.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <ostream>
#include <string>
#include <vector>

#include "base/prng.h"
#include "io/object_store.h"

namespace firn {

struct StoreWorld {
  std::string name;
  // Runs its argument as a fiber, or as a plain function where `fibers` is false.
  std::function<void(const std::function<void(Io&, ObjectStore&)>&)> with;
  bool fibers = true;
  bool classes = true;  // Whether it takes GLACIER_IR.
  friend std::ostream& operator<<(std::ostream& out, const StoreWorld& world) {
    return out << world.name;
  }
};

inline std::vector<std::byte> store_test_bytes(size_t count, uint64_t seed) {
  Prng prng(seed);
  std::vector<std::byte> bytes(count);
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(prng.next());
  return bytes;
}

class ObjectStores : public ::testing::TestWithParam<StoreWorld> {
 protected:
  static Result<void> put(Io& io, ObjectStore& store, const std::string& key, View body,
                          const PutHow& how = {}) {
    const ::iovec slice = slice_of(body);
    return store.put(io, key, Iovec(&slice, 1), how);
  }
  // The whole object, or what it says.
  static Result<std::vector<std::byte>> whole(Io& io, ObjectStore& store, const std::string& key) {
    std::vector<std::byte> room(TRY(store.head(io, key)).bytes);
    if (room.empty()) return room;
    EXPECT_EQ(TRY(store.get(io, key, 0, room)), room.size());
    return room;
  }
  static std::vector<std::string> keys_of(Io& io, ObjectStore& store, const std::string& prefix,
                                          const std::string& after = "", size_t count = 1000) {
    const auto found = store.list(io, prefix, after, count);
    EXPECT_TRUE(found) << text_of(found.error());
    std::vector<std::string> keys;
    if (found) {
      for (const ObjectInfo& info : *found) keys.push_back(info.key);
    }
    return keys;
  }
};

#define EXPECT_GOOD(result)                                   \
  do {                                                        \
    const auto& good = (result);                              \
    EXPECT_TRUE(good) << (good ? "" : text_of(good.error())); \
  } while (false)

TEST_P(ObjectStores, give_back_what_was_put) {
  GetParam().with([](Io& io, ObjectStore& store) {
    for (const size_t size :
         {size_t{0}, size_t{1}, size_t{4096}, size_t{1} << 20, size_t{3000003}}) {
      const std::vector<std::byte> body = store_test_bytes(size, size);
      // In slices, one of them empty: how segments are put.
      const View all(body);
      const size_t third = size / 3;
      const std::array<::iovec, 4> slices{slice_of(all.first(third)), slice_of(View()),
                                          slice_of(all.subspan(third, third)),
                                          slice_of(all.subspan(2 * third))};
      const std::string key = fmt::format("d/size={}.bin", size);
      EXPECT_GOOD(store.put(io, key, slices, {}));
      const auto info = store.head(io, key);
      ASSERT_TRUE(info) << text_of(info.error());
      EXPECT_EQ(info->bytes, size);
      EXPECT_EQ(info->key, key);
      EXPECT_EQ(info->storage_class, kStandardClass);
      EXPECT_EQ(info->state, ObjectInfo::State::ready);
      const auto read = whole(io, store, key);
      ASSERT_TRUE(read) << text_of(read.error());
      EXPECT_TRUE(*read == body) << size;
    }
  });
}

TEST_P(ObjectStores, read_ranges_and_say_where_the_end_is) {
  GetParam().with([](Io& io, ObjectStore& store) {
    const std::vector<std::byte> body = store_test_bytes(100000, 1);
    EXPECT_GOOD(put(io, store, "r", body));
    struct Case {
      uint64_t at;
      size_t length, wanted;
    };
    for (const Case& c : {Case{0, 1, 1}, Case{99999, 1, 1}, Case{5000, 7000, 7000},
                          Case{99000, 5000, 1000}, Case{100000, 10, 0}, Case{1 << 30, 10, 0}}) {
      std::vector<std::byte> room(c.length, std::byte{0xee});
      const auto got = store.get(io, "r", c.at, room);
      ASSERT_TRUE(got) << text_of(got.error());
      EXPECT_EQ(*got, c.wanted) << c.at;
      if (c.wanted > 0) {
        EXPECT_TRUE(std::equal(room.begin(), room.begin() + static_cast<ptrdiff_t>(c.wanted),
                               body.begin() + static_cast<ptrdiff_t>(c.at)));
      }
    }
  });
}

TEST_P(ObjectStores, say_what_is_missing) {
  GetParam().with([](Io& io, ObjectStore& store) {
    EXPECT_GOOD(put(io, store, "a/b/c", store_test_bytes(10, 1)));
    for (const char* key : {"nothing", "a/b/d", "a/x/c"}) {
      std::vector<std::byte> room(10);
      const auto info = store.head(io, key);
      ASSERT_FALSE(info);
      EXPECT_EQ(info.error().code, Errc::not_found) << text_of(info.error());
      EXPECT_NE(text_of(info.error()).find(key), std::string_view::npos) << text_of(info.error());
      const auto got = store.get(io, key, 0, room);
      ASSERT_FALSE(got);
      EXPECT_EQ(got.error().code, Errc::not_found);
      EXPECT_GOOD(store.remove(io, key));
    }
    EXPECT_EQ(keys_of(io, store, ""), std::vector<std::string>{"a/b/c"});
  });
}

TEST_P(ObjectStores, replace_and_remove) {
  GetParam().with([](Io& io, ObjectStore& store) {
    const auto older = store_test_bytes(5000, 1);
    const auto newer = store_test_bytes(300, 2);
    EXPECT_GOOD(put(io, store, "m/root", older));
    EXPECT_GOOD(put(io, store, "m/root", newer));
    EXPECT_TRUE(whole(io, store, "m/root").take() == newer);
    EXPECT_GOOD(store.remove(io, "m/root"));
    EXPECT_EQ(store.head(io, "m/root").error().code, Errc::not_found);
    EXPECT_GOOD(store.remove(io, "m/root"));
    EXPECT_TRUE(keys_of(io, store, "").empty());
    EXPECT_GOOD(put(io, store, "m/root", older));
    EXPECT_TRUE(whole(io, store, "m/root").take() == older);
  });
}

TEST_P(ObjectStores, make_once_what_is_put_once) {
  GetParam().with([](Io& io, ObjectStore& store) {
    const auto first = store_test_bytes(100, 1);
    EXPECT_GOOD(put(io, store, "c/1", first, {.once = true}));
    const auto again = put(io, store, "c/1", store_test_bytes(100, 2), {.once = true});
    ASSERT_FALSE(again);
    EXPECT_EQ(again.error().code, Errc::exists) << text_of(again.error());
    EXPECT_TRUE(whole(io, store, "c/1").take() == first);
    EXPECT_GOOD(store.remove(io, "c/1"));
    EXPECT_GOOD(put(io, store, "c/1", first, {.once = true}));
  });
}

TEST_P(ObjectStores, let_exactly_one_of_many_make_it) {
  GetParam().with([](Io& io, ObjectStore& store) {
    for (int round = 0; round < 4; ++round) {
      const std::string key = fmt::format("race/{}", round);
      std::vector<uint64_t> made;
      {
        Group group(io);
        for (uint64_t i = 0; i < 8; ++i) {
          io.spawn(group, [&io, &store, &made, &key, i] {
            const auto done = put(io, store, key, store_test_bytes(2000, i), {.once = true});
            if (done) {
              made.push_back(i);
            } else {
              EXPECT_EQ(done.error().code, Errc::exists) << text_of(done.error());
            }
          });
        }
      }
      ASSERT_EQ(made.size(), 1u);
      EXPECT_TRUE(whole(io, store, key).take() == store_test_bytes(2000, made[0]));
    }
  });
}

TEST_P(ObjectStores, show_whole_objects_only) {
  GetParam().with([](Io& io, ObjectStore& store) {
    // Every put is of one byte value; a reader must never meet two of them.
    std::vector<std::byte> body(40000, std::byte{0});
    EXPECT_GOOD(put(io, store, "w", body));
    Group group(io);
    bool ended = false;
    io.spawn(group, [&] {
      for (uint8_t value = 1; value < 20; ++value) {
        std::ranges::fill(body, std::byte{value});
        EXPECT_GOOD(put(io, store, "w", body));
      }
      ended = true;
    });
    do {
      std::vector<std::byte> room(40000);
      const auto got = store.get(io, "w", 0, room);
      ASSERT_TRUE(got) << text_of(got.error());
      EXPECT_EQ(*got, room.size());
      EXPECT_TRUE(std::ranges::all_of(room, [&](std::byte b) { return b == room[0]; }));
    } while (!ended);
  });
}

TEST_P(ObjectStores, serve_many_at_a_time) {
  GetParam().with([](Io& io, ObjectStore& store) {
    Group group(io);
    for (uint64_t i = 0; i < 100; ++i) {
      io.spawn(group, [&io, &store, i] {
        const std::string key = fmt::format("many/{}", i);
        const auto body = store_test_bytes(3000 + i, i);
        EXPECT_GOOD(put(io, store, key, body));
        EXPECT_TRUE(whole(io, store, key).take() == body);
      });
    }
    group.wait();
    EXPECT_EQ(keys_of(io, store, "many/").size(), 100u);
  });
}

TEST_P(ObjectStores, list_in_order_of_bytes) {
  GetParam().with([](Io& io, ObjectStore& store) {
    std::vector<std::string> keys = {"a-b", "a.b", "a/b", "a/b-c/x", "a/b.c", "a0",   "aa/z",
                                     "B/b", "b=1", "b_1", "c/d/e/f", "c/d/g", "c/d2", "z"};
    for (const std::string& key : keys) {
      EXPECT_GOOD(put(io, store, key, store_test_bytes(key.size(), 1)));
    }
    std::ranges::sort(keys);
    EXPECT_EQ(keys_of(io, store, ""), keys);
    for (const std::string prefix : {"a", "a/", "a/b", "c/d/", "c/d", "nothing", "b"}) {
      std::vector<std::string> wanted;
      for (const std::string& key : keys) {
        if (key.starts_with(prefix)) wanted.push_back(key);
      }
      EXPECT_EQ(keys_of(io, store, prefix), wanted) << prefix;
    }
    // After each key, a name that is not there, and a folder.
    std::vector<std::string> afters = keys;
    afters.insert(afters.end(), {"a/", "a/a", "c", "c/d", "c/d/zz", "zz", "A"});
    for (const std::string& after : afters) {
      for (const size_t count : {size_t{1}, size_t{3}, size_t{100}}) {
        std::vector<std::string> wanted;
        for (const std::string& key : keys) {
          if (key > after && wanted.size() < count) wanted.push_back(key);
        }
        EXPECT_EQ(keys_of(io, store, "", after, count), wanted) << after << " " << count;
      }
    }
    const auto found = store.list(io, "c/d/e/", "", 10);
    ASSERT_TRUE(found && found->size() == 1);
    EXPECT_EQ(found->front().bytes, 7u);
    EXPECT_EQ(found->front().storage_class, kStandardClass);
  });
}

TEST_P(ObjectStores, keep_storage_classes) {
  if (!GetParam().classes) return;
  GetParam().with([](Io& io, ObjectStore& store) {
    const auto body = store_test_bytes(1000, 3);
    EXPECT_GOOD(put(io, store, "c/cold", body, {.storage_class = "GLACIER_IR"}));
    EXPECT_GOOD(put(io, store, "c/warm", body, {.storage_class = "STANDARD"}));
    EXPECT_EQ(store.head(io, "c/cold").take().storage_class, "GLACIER_IR");
    EXPECT_EQ(store.head(io, "c/warm").take().storage_class, kStandardClass);
    const auto found = store.list(io, "c/", "", 10);
    ASSERT_TRUE(found && found->size() == 2);
    EXPECT_EQ((*found)[0].storage_class, "GLACIER_IR");
    EXPECT_TRUE(whole(io, store, "c/cold").take() == body);
    EXPECT_GOOD(put(io, store, "c/cold", body));  // And lose them with what they were given to.
    EXPECT_EQ(store.head(io, "c/cold").take().storage_class, kStandardClass);
  });
}

TEST_P(ObjectStores, know_what_time_it_is) {
  GetParam().with([](Io& io, ObjectStore& store) {
    constexpr int64_t kYear = int64_t{365} * 24 * 3600 * 1'000'000'000;
    EXPECT_GOOD(put(io, store, "t", store_test_bytes(1, 1)));
    const auto now = store.wall_clock_ns(io);
    ASSERT_TRUE(now) << text_of(now.error());
    EXPECT_GT(*now, 50 * kYear);
    const int64_t modified = store.head(io, "t").take().modified_ns;
    EXPECT_LT(std::abs(modified - *now), 60'000'000'000);
    const auto found = store.list(io, "t", "", 1);
    ASSERT_TRUE(found && found->size() == 1);
    EXPECT_LT(std::abs(found->front().modified_ns - *now), 60'000'000'000);
  });
}

TEST_P(ObjectStores, count_what_they_did) {
  GetParam().with([](Io& io, ObjectStore& store) {
    const ObjectCounters before = store.counters();
    EXPECT_GOOD(put(io, store, "n", store_test_bytes(1000, 1)));
    std::vector<std::byte> room(400);
    EXPECT_EQ(store.get(io, "n", 100, room).take(), 400u);
    keys_of(io, store, "");
    EXPECT_GOOD(store.remove(io, "n"));
    const ObjectCounters after = store.counters();
    EXPECT_EQ(after.puts, before.puts + 1);
    EXPECT_EQ(after.gets, before.gets + 1);
    EXPECT_EQ(after.lists, before.lists + 1);
    EXPECT_EQ(after.removes, before.removes + 1);
    EXPECT_EQ(after.bytes_put, before.bytes_put + 1000);
    EXPECT_EQ(after.bytes_got, before.bytes_got + 400);
  });
}

inline std::string name_of_world(const ::testing::TestParamInfo<StoreWorld>& info) {
  return info.param.name;
}

}  // namespace firn
