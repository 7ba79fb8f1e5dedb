// SPDX-License-Identifier: Apache-2.0
#include "store/shadow.h"

#include <gtest/gtest.h>

#include "sim/sim_io.h"

namespace firn::store {
namespace {

// The records that a note of one word makes.
constexpr size_t kWord = sizeof(format::PageRecord) + sizeof(format::WordRun) + 8;

class ShadowTest : public testing::Test {
 protected:
  // Runs `body` with the shadow as one process after the other finds it.
  void process(const std::function<void(Shadow&)>& body) {
    sim::SimIo io(world_, 1);
    io.run([&] {
      auto shadow = Shadow::open(io, "/shadow", format::Uuid{});
      ASSERT_TRUE(shadow);
      body(**shadow);
    });
  }
  static void change(Shadow& shadow, format::PageNo page, uint64_t value) {
    const le64 word(value);
    shadow.note(page, false, 3, view_of(word));
  }
  static size_t words_left(Shadow& shadow, uint64_t epoch, uint64_t last) {
    return shadow.left(epoch, last).records.size() / kWord;
  }
  sim::World world_;
};

TEST_F(ShadowTest, H1_what_was_sealed_is_found_and_nothing_else) {
  process([](Shadow& shadow) {
    EXPECT_EQ(words_left(shadow, 5, 0), 0U);
    shadow.start(5, 1);
    change(shadow, 7, 1);
    change(shadow, 8, 2);
    EXPECT_TRUE(shadow.seal());
    change(shadow, 9, 3);  // Nobody was told.
  });
  process([](Shadow& shadow) {
    EXPECT_EQ(words_left(shadow, 5, 0), 2U);
    EXPECT_EQ(words_left(shadow, 6, 0), 0U) << "another epoch";
    EXPECT_EQ(words_left(shadow, 5, 1), 0U) << "the journal has it";
    const auto left = shadow.left(5, 0);
    EXPECT_EQ(load<format::PageRecord>(left.records).page, 7U);
    EXPECT_EQ(load<le64>(View(left.records).subspan(2 * kWord - 8)), 2U);
  });
}

TEST_F(ShadowTest, H3_two_commits_have_a_half_each) {
  process([](Shadow& shadow) {
    shadow.start(5, 1);
    change(shadow, 7, 1);
    shadow.taken(1);
    change(shadow, 7, 2);
    EXPECT_TRUE(shadow.seal());
  });
  process([](Shadow& shadow) {
    EXPECT_EQ(words_left(shadow, 5, 0), 2U);  // Commit 1 was torn.
    EXPECT_EQ(words_left(shadow, 5, 1), 1U);  // It was not.
    EXPECT_EQ(words_left(shadow, 5, 2), 0U);
  });
}

TEST_F(ShadowTest, H4_a_full_half_ends_the_promise_until_it_is_committed) {
  const std::vector<std::byte> page(4096);
  process([&](Shadow& shadow) {
    shadow.start(5, 1);
    change(shadow, 7, 1);
    EXPECT_TRUE(shadow.seal());
    for (int i = 0; i < 1024; ++i) shadow.note(8, false, 0, page);
    EXPECT_FALSE(shadow.seal());
    shadow.taken(1);
    change(shadow, 7, 2);
    EXPECT_FALSE(shadow.seal()) << "without commit 1 this is worth nothing";
    shadow.durable();
    EXPECT_TRUE(shadow.seal());
  });
  process([](Shadow& shadow) {
    EXPECT_EQ(words_left(shadow, 5, 1), 1U);
    // Had commit 1 been torn: the sealed part of it, and none of the next.
    EXPECT_EQ(words_left(shadow, 5, 0), 1U);
  });
}

TEST_F(ShadowTest, H4_a_change_that_it_cannot_say_does_the_same) {
  process([](Shadow& shadow) {
    shadow.start(5, 1);
    shadow.miss();
    EXPECT_FALSE(shadow.seal());
    shadow.taken(1);
    shadow.durable();
    EXPECT_TRUE(shadow.seal());
  });
}

TEST_F(ShadowTest, a_process_that_is_killed_while_it_takes_over_loses_nothing) {
  process([](Shadow& shadow) {
    shadow.start(5, 40);
    change(shadow, 7, 1);
    EXPECT_TRUE(shadow.seal());
  });
  process([](Shadow& shadow) {
    const auto left = shadow.left(5, 39);
    EXPECT_EQ(left.after, 39U);
    shadow.carry(6, left.after);
  });
  process([](Shadow& shadow) {
    EXPECT_EQ(words_left(shadow, 6, 0), 1U);
    EXPECT_EQ(words_left(shadow, 6, 1), 0U) << "its first commit has it";
    EXPECT_EQ(words_left(shadow, 5, 39), 1U) << "or the epoch was not entered";
    shadow.start(6, 1);
    EXPECT_EQ(words_left(shadow, 6, 0), 0U);
  });
}

TEST_F(ShadowTest, a_kill_between_any_two_stores_of_a_seal_leaves_a_prefix) {
  process([](Shadow& shadow) {
    shadow.start(5, 1);
    for (uint64_t i = 0; i < 20; ++i) {
      change(shadow, i, i);
      if (i % 3 == 2) {
        EXPECT_TRUE(shadow.seal());
      }
    }
  });
  const std::vector<std::byte> whole = [&] {
    const View bytes = world_.lasting()["/shadow"]->bytes();
    return std::vector<std::byte>(bytes.begin(), bytes.begin() + 64 * 1024 * 1024 / 8);
  }();
  // Any byte of the half may be the last that was stored: cut there, with rubbish behind.
  const size_t from = format::kShadowHeaderBytes + format::kShadowHalfBytes;  // Commit 1 is odd.
  for (size_t cut = from + sizeof(format::ShadowHalf); cut < from + 20 * kWord + 200; cut += 5) {
    const Bytes bytes = world_.lasting()["/shadow"]->bytes();
    std::ranges::copy(View(whole).first(std::min(whole.size(), bytes.size())), bytes.begin());
    std::ranges::fill(bytes.subspan(cut, 4096), std::byte{0xa5});
    process([](Shadow& shadow) {
      const size_t words = words_left(shadow, 5, 0);
      EXPECT_EQ(words % 3, 0U);
      EXPECT_LE(words, 18U);
    });
  }
}

}  // namespace
}  // namespace firn::store
