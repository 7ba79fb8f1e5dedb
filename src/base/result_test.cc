// SPDX-License-Identifier: Apache-2.0
#include "base/result.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <memory>

#include "base/bytes.h"
#include "base/task.h"

namespace firn {
namespace {

Result<int> half(int n) {
  if (n % 2 != 0) return fail(Errc::invalid, "{} is odd", n);
  return n / 2;
}
Result<int> quarter(int n) { return TRY(half(TRY(half(n)))); }
Result<std::unique_ptr<int>> boxed(int n) { return std::make_unique<int>(TRY(half(n))); }

TEST(Result, try_returns_the_value_or_the_error) {
  EXPECT_EQ(*quarter(12), 3);
  const Result<int> bad = quarter(6);
  ASSERT_FALSE(bad);
  EXPECT_EQ(bad.error().code, Errc::invalid);
  EXPECT_EQ(text_of(bad.error()), "3 is odd");
  EXPECT_EQ(**boxed(4), 2);
}

TEST(Result, an_error_keeps_its_own_sentence_among_later_ones) {
  const Error first = fail(Errc::io, "first");
  const Error second = fail_errno(ENOSPC, "second");
  EXPECT_EQ(text_of(first), "first");
  EXPECT_EQ(text_of(second), "second (No space left on device)");
  EXPECT_EQ(second.code, Errc::no_space);
  EXPECT_EQ(errno_of(second.code), ENOSPC);
}

TEST(Crc32c, known_vector) {
  const std::string digits = "123456789";
  EXPECT_EQ(crc32c(std::as_bytes(std::span(digits))), 0xe3069283U);
  const View all = std::as_bytes(std::span(digits));
  EXPECT_EQ(crc32c(all.subspan(4), crc32c(all.first(4))), 0xe3069283U);
}

TEST(Task, moves_and_destroys_what_it_holds) {
  auto held = std::make_shared<int>(7);
  int seen = 0;
  {
    Task task([held, &seen] { seen = *held; });
    Task moved(std::move(task));
    EXPECT_FALSE(task);
    moved();
    EXPECT_EQ(held.use_count(), 2);
  }
  EXPECT_EQ(seen, 7);
  EXPECT_EQ(held.use_count(), 1);
}

}  // namespace
}  // namespace firn
