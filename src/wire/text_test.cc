// SPDX-License-Identifier: Apache-2.0
#include "wire/text.h"

#include <gtest/gtest.h>

#include "base/prng.h"
#include "base/units.h"

namespace firn::wire {
namespace {

TEST(Text, sizes_that_are_understood) {
  struct Row {
    const char* text;
    uint64_t bytes;
  };
  constexpr Row kRows[] = {
      {"0", 0},
      {"4096", 4096},
      {"512B", 512},
      {"1K", kKiB},
      {"1k", kKiB},
      {"64KiB", 64 * kKiB},
      {"512M", 512 * kMiB},
      {"10G", 10 * kGiB},
      {"10GB", 10 * kGiB},
      {"1.5T", kTiB * 3 / 2},
      {"0.5K", 512},
      {"2P", 2048 * kTiB},
      {"15E", 15ULL << 60},
      {"18446744073709551615", UINT64_MAX},
      {"0.1K", 102},
  };
  for (const Row& row : kRows) {
    const Result<uint64_t> size = parse_size(row.text);
    ASSERT_TRUE(size) << row.text << ": " << text_of(size.error());
    EXPECT_EQ(*size, row.bytes) << row.text;
  }
}

TEST(Text, sizes_that_are_refused_are_quoted) {
  for (const char* text :
       {"", "G", "-1", "+1", " 1", "1 G", "1.5", "1.", "1.G", "10X", "10GG", "16E", "10GiBs",
        "18446744073709551616", "99999999999999999999999999999999999999999", "1e9", "0x10",
        "1.1234567890123K"}) {
    const Result<uint64_t> size = parse_size(text);
    ASSERT_FALSE(size) << text;
    EXPECT_EQ(size.error().code, Errc::invalid) << text;
    EXPECT_NE(text_of(size.error()).find('"' + std::string(text) + '"'), std::string::npos) << text;
  }
}

TEST(Text, X2_exact_sizes_make_the_round_trip) {
  Prng prng(1);
  for (int i = 0; i < 20000; ++i) {
    const uint64_t bytes = (prng.next() >> prng.below(64)) << (10 * prng.below(7));
    const Result<uint64_t> again = parse_size(text_of_size_exact(bytes));
    ASSERT_TRUE(again) << bytes;
    EXPECT_EQ(*again, bytes);
  }
}

TEST(Text, sizes_for_people) {
  EXPECT_EQ(text_of_size(0), "0 B");
  EXPECT_EQ(text_of_size(1023), "1023 B");
  EXPECT_EQ(text_of_size(1024), "1 KiB");
  EXPECT_EQ(text_of_size(10 * kGiB), "10 GiB");
  EXPECT_EQ(text_of_size(kTiB * 3 / 2), "1.5 TiB");
  EXPECT_EQ(text_of_size(kGiB - 1), "1023.9 MiB");
  EXPECT_EQ(text_of_size(UINT64_MAX), "15.9 EiB");
}

TEST(Text, switches) {
  for (const char* text : {"on", "yes", "true", "1"}) EXPECT_TRUE(*parse_switch(text)) << text;
  for (const char* text : {"off", "no", "false", "0"}) EXPECT_FALSE(*parse_switch(text)) << text;
  EXPECT_FALSE(parse_switch("maybe"));
  EXPECT_FALSE(parse_switch(""));
}

TEST(Text, names) {
  for (const char* name : {"a", "web-01", "debian.12:root_x", "0", "_x", ":"}) {
    EXPECT_TRUE(check_disk_name(name)) << name;
  }
  EXPECT_TRUE(check_disk_name(std::string(128, 'x')));
  EXPECT_FALSE(check_disk_name(std::string(129, 'x')));
  for (const char* name :
       {"", ".", "..", ".x", "-x", "a/b", "a@b", "a b", "a\nb", "caf\xc3\xa9", "a%2fb"}) {
    const Result<void> checked = check_disk_name(name);
    ASSERT_FALSE(checked) << name;
    EXPECT_EQ(checked.error().code, Errc::invalid);
  }
  EXPECT_FALSE(check_disk_name(std::string_view("a\0b", 3)));
}

TEST(Text, names_of_snapshots) {
  EXPECT_TRUE(check_snapshot_name("web@2026-11-21T16:00:00Z"));
  EXPECT_TRUE(check_any_name("web@monday"));
  EXPECT_TRUE(check_any_name("web"));
  EXPECT_EQ(split_name("web@monday").disk, "web");
  EXPECT_EQ(split_name("web@monday").snapshot, "monday");
  EXPECT_EQ(split_name("web").snapshot, "");
  EXPECT_TRUE(check_snapshot_name(std::string(128, 'd') + "@" + std::string(128, 's')));
  for (const char* name : {"", "web", "web@", "@monday", "@", "a@b@c", "a@b/c", "a/b@c", "a@-b",
                           "a@.", "a b@c", "a@b\n"}) {
    const Result<void> checked = check_snapshot_name(name);
    ASSERT_FALSE(checked) << name;
    EXPECT_EQ(checked.error().code, Errc::invalid);
  }
  EXPECT_FALSE(check_any_name("a@b@c"));
  EXPECT_FALSE(check_any_name(""));
}

TEST(Text, X1_what_is_quoted_fits_a_terminal) {
  EXPECT_EQ(printable("a\x1b[31mb\n\xff"), "a?[31mb??");
  EXPECT_EQ(printable("abcdef", 3), "abc...");
}

}  // namespace
}  // namespace firn::wire
