// SPDX-License-Identifier: Apache-2.0
#include "format/catalog.h"

#include <gtest/gtest.h>

#include "format/format_test_util.h"

namespace firn::format {
namespace {

void add_field(std::string& tail, uint16_t tag, std::string_view value) {
  for (const uint16_t number : {tag, static_cast<uint16_t>(value.size())}) {
    tail.push_back(static_cast<char>(number & 0xff));
    tail.push_back(static_cast<char>(number >> 8));
  }
  tail.append(value);
}

std::string random_text(Prng& prng, std::string_view letters, uint64_t length) {
  std::string text;
  for (uint64_t i = 0; i < length; ++i) text.push_back(letters[prng.below(letters.size())]);
  return text;
}

Named random_named(Prng& prng) {
  Named named;
  named.kind = prng.one_in(2) ? RecordKind::disk : RecordKind::snapshot;
  named.name = "a" + random_text(prng, "azAZ09._:-", prng.below(kNameBytesMax));
  named.uuid = random_uuid(prng);
  if (named.kind == RecordKind::snapshot) named.disk = random_uuid(prng);
  named.layer = static_cast<uint32_t>(1 + prng.below(UINT32_MAX));
  named.created_ns = prng.next();
  for (uint64_t i = prng.below(4); i > 0; --i) {
    named.settings[random_text(prng, "abc", 1 + prng.below(20))] =
        random_text(prng, std::string_view("xyz \0\xff", 6), prng.below(20));
  }
  for (uint64_t i = prng.below(4); i > 0; --i) {
    add_field(named.unknown, static_cast<uint16_t>(6 + 2 * prng.below(32765)),
              random_text(prng, "unknown", prng.below(20)));
  }
  return named;
}

NameRecord record_with_tail(const std::string& tail) {
  Named named;
  named.name = "web";
  named.layer = 1;
  NameRecord record = *encode(named);
  record.tail_bytes = static_cast<uint16_t>(tail.size());
  std::ranges::copy(std::as_bytes(std::span(tail)), record.tail.begin());
  return record;
}

TEST(Catalog, names) {
  const std::string longest(kNameBytesMax, 'n');
  struct Case {
    std::string_view name;
    bool good;
  };
  for (const Case& each : {
           Case{"a", true},
           Case{"web-01", true},
           Case{"Web_01.old", true},
           Case{"vm:disk:0", true},
           Case{"0", true},
           Case{"_", true},
           Case{":", true},
           Case{"a..b", true},
           Case{longest, true},
           Case{"", false},
           Case{".", false},
           Case{"..", false},
           Case{".hidden", false},
           Case{"-rf", false},
           Case{"a/b", false},
           Case{"a@b", false},
           Case{"a b", false},
           Case{"a\n", false},
           Case{"a\t", false},
           Case{"a\x7f", false},
           Case{"gr\xc3\xbc\xc3\x9f", false},
           Case{std::string_view("a\0b", 3), false},
           Case{"a\\b", false},
           Case{"a%b", false},
           Case{"a*", false},
           Case{"a\"", false},
       }) {
    EXPECT_EQ(name_is_valid(each.name), each.good) << each.name;
  }
  EXPECT_FALSE(name_is_valid(longest + "n"));
  for (int letter = 0; letter < 256; ++letter) {
    const std::string name{'a', static_cast<char>(letter)};
    const bool good = letter < 128 && (std::isalnum(letter) != 0 || letter == '.' ||
                                       letter == '_' || letter == ':' || letter == '-');
    EXPECT_EQ(name_is_valid(name), good) << letter;
  }
}

TEST(Catalog, a_name_makes_the_round_trip) {
  Prng prng(1);
  int fitted = 0;
  for (int i = 0; i < 5000; ++i) {
    const Named named = random_named(prng);
    const auto record = encode(named);
    ASSERT_TRUE(record) << text_of(record.error());
    ++fitted;
    EXPECT_EQ(*kind_of_record(view_of(*record)), named.kind);
    const auto decoded = decode_name(view_of(*record));
    ASSERT_TRUE(decoded) << text_of(decoded.error());
    EXPECT_EQ(decoded->kind, named.kind);
    EXPECT_EQ(decoded->name, named.name);
    EXPECT_EQ(decoded->uuid, named.uuid);
    EXPECT_EQ(decoded->layer, named.layer);
    EXPECT_EQ(decoded->created_ns, named.created_ns);
    EXPECT_EQ(decoded->settings, named.settings);
    EXPECT_EQ(decoded->unknown, named.unknown);
    EXPECT_TRUE(same(view_of(*encode(*decoded)), view_of(*record)));
  }
  EXPECT_EQ(fitted, 5000);
}

TEST(Catalog, fields_of_tomorrow_even_are_kept_and_odd_are_refused) {
  std::string tail;
  add_field(tail, 4, "first");
  add_field(tail, 2, std::string_view("serve\0on", 8));
  add_field(tail, 65534, "");
  add_field(tail, 4, "again");
  const auto named = decode_name(view_of(record_with_tail(tail)));
  ASSERT_TRUE(named) << text_of(named.error());
  EXPECT_EQ(named->settings, (std::map<std::string, std::string>{{"serve", "on"}}));
  std::string kept;
  add_field(kept, 4, "first");
  add_field(kept, 65534, "");
  add_field(kept, 4, "again");
  EXPECT_EQ(named->unknown, kept);
  const auto again = decode_name(view_of(*encode(*named)));
  ASSERT_TRUE(again);
  EXPECT_EQ(again->unknown, kept);
  for (const uint16_t tag : {uint16_t{1}, uint16_t{3}, uint16_t{65535}}) {
    std::string odd;
    add_field(odd, tag, "x");
    expect_error(decode_name(view_of(record_with_tail(odd))), Errc::too_new,
                 fmt::format("field {}", tag));
  }
}

TEST(Catalog, impossible_tails_are_refused) {
  const auto field = [](uint16_t tag, std::string_view value) {
    std::string tail;
    add_field(tail, tag, value);
    return tail;
  };
  const std::string setting = field(2, std::string_view("k\0v", 3));
  struct Case {
    const char* text;
    std::string tail;
  };
  for (const Case& each : {
           Case{"ends in a tag", "\x04"},
           Case{"ends in a tag", setting + std::string("\x04\0\0", 3)},
           Case{"longer than the record", std::string("\x04\0\x01\0", 4)},
           Case{"longer than the record", std::string("\x04\0\xff\xff", 4)},
           Case{"longer than the record", std::string("\x02\0\xff\xff", 4) + "k"},
           Case{"without a tag", field(0, "")},
           Case{"without a tag", setting + std::string(4, '\0')},
           Case{"without a key", field(2, "no zero byte")},
           Case{"without a key", field(2, std::string_view("\0value", 6))},
           Case{"without a key", field(2, "")},
           Case{"twice", setting + setting},
       }) {
    expect_error(decode_name(view_of(record_with_tail(each.tail))), Errc::corrupt, each.text);
  }
}

TEST(Catalog, impossible_name_records_are_refused) {
  struct Case {
    const char* text;
    Errc code;
    void (*change)(NameRecord&);
  };
  using R = NameRecord;
  for (const Case& each : {
           Case{"of kind 0", Errc::corrupt, [](R& r) { r.kind = std::byte{0}; }},
           Case{"of kind 2", Errc::corrupt, [](R& r) { r.kind = std::byte{2}; }},
           Case{"of kind 9", Errc::corrupt, [](R& r) { r.kind = std::byte{9}; }},
           Case{"version 0", Errc::too_new, [](R& r) { r.version = std::byte{0}; }},
           Case{"version 2", Errc::too_new, [](R& r) { r.version = std::byte{2}; }},
           Case{"bad name", Errc::corrupt, [](R& r) { r.name_bytes = std::byte{0}; }},
           Case{"129 bytes", Errc::corrupt, [](R& r) { r.name_bytes = std::byte{129}; }},
           Case{"255 bytes", Errc::corrupt, [](R& r) { r.name_bytes = std::byte{255}; }},
           Case{"bad name", Errc::corrupt, [](R& r) { r.name[1] = '/'; }},
           Case{"bad name", Errc::corrupt, [](R& r) { r.name_bytes = std::byte{4}; }},
           Case{"impossible", Errc::corrupt, [](R& r) { r.name[3] = 'x'; }},
           Case{"impossible", Errc::corrupt, [](R& r) { r.name[127] = 'x'; }},
           Case{"impossible", Errc::corrupt, [](R& r) { r.layer = 0; }},
           Case{"impossible", Errc::corrupt, [](R& r) { r.tail_bytes = 337; }},
           Case{"impossible", Errc::corrupt, [](R& r) { r.tail_bytes = 65535; }},
           Case{"impossible", Errc::corrupt, [](R& r) { r.tail[0] = std::byte{1}; }},
           Case{"impossible", Errc::corrupt, [](R& r) { r.tail[335] = std::byte{1}; }},
           Case{"impossible", Errc::corrupt, [](R& r) { r.reserved0 = std::byte{1}; }},
           Case{"impossible", Errc::corrupt, [](R& r) { r.reserved[5] = std::byte{1}; }},
           Case{"goes on elsewhere", Errc::too_new, [](R& r) { r.continuation = 1; }},
       }) {
    NameRecord record = record_with_tail("");
    ASSERT_TRUE(decode_name(view_of(record)));
    each.change(record);
    expect_error(decode_name(view_of(record)), each.code, each.text);
  }
}

TEST(Catalog, settings_that_cannot_be_read_back_are_not_written) {
  Named named;
  named.name = "web";
  named.layer = 1;
  named.settings["description"] = std::string(320, 'x');
  ASSERT_TRUE(encode(named)) << "4 + 11 + 1 + 320: to the last byte";
  named.settings["description"] += 'x';
  expect_error(encode(named), Errc::no_space, "there is room for 336");
  named.settings["description"] = std::string(70000, 'x');  // More than a length can say.
  expect_error(encode(named), Errc::no_space, "there is room for 336");
  named.settings = {{"", "value"}};
  expect_error(encode(named), Errc::invalid, "key");
  named.settings = {{std::string("a\0b", 3), "value"}};
  expect_error(encode(named), Errc::invalid, "key");
}

LayerRecord some_layer() {
  LayerRecord layer;
  layer.state = static_cast<std::byte>(LayerState::live);
  layer.root_level = std::byte{2};
  layer.layer = 5;
  layer.family = 2;
  layer.parent = 4;
  layer.bytes = 10 * kGiB;
  layer.root = encode(IndexEntry{77, true});
  layer.own_grains = 12;
  layer.own_pages = 3;
  layer.open_block = 9;
  return layer;
}

TEST(Catalog, layers) {
  const auto decoded = decode_layer(view_of(some_layer()));
  ASSERT_TRUE(decoded) << text_of(decoded.error());
  EXPECT_TRUE(same(view_of(*decoded), view_of(some_layer())));
  EXPECT_EQ(*kind_of_record(view_of(some_layer())), RecordKind::layer);
  struct Case {
    const char* text;
    Errc code;
    void (*change)(LayerRecord&);
  };
  using L = LayerRecord;
  for (const Case& each : {
           Case{"of kind 1", Errc::corrupt, [](L& l) { l.kind = std::byte{1}; }},
           Case{"version 2", Errc::too_new, [](L& l) { l.version = std::byte{2}; }},
           Case{"version 0", Errc::too_new, [](L& l) { l.version = std::byte{0}; }},
           Case{"layer 5", Errc::corrupt, [](L& l) { l.state = std::byte{0}; }},
           Case{"layer 5", Errc::corrupt, [](L& l) { l.state = std::byte{4}; }},
           Case{"layer 5", Errc::corrupt, [](L& l) { l.root_level = std::byte{4}; }},
           Case{"layer 0", Errc::corrupt, [](L& l) { l.layer = 0; }},
           Case{"family 0", Errc::corrupt, [](L& l) { l.family = 0; }},
           Case{"layer 5", Errc::corrupt, [](L& l) { l.parent = 5; }},
           Case{"layer 5", Errc::corrupt, [](L& l) { l.bytes = kDiskBytesMax + 1; }},
           Case{"layer 5", Errc::corrupt, [](L& l) { l.bytes = UINT64_MAX; }},
           Case{"layer 5", Errc::corrupt, [](L& l) { l.reserved[0] = std::byte{1}; }},
           Case{"layer 5", Errc::corrupt, [](L& l) { l.reserved[5] = std::byte{1}; }},
           Case{"layer 5", Errc::corrupt, [](L& l) { l.family = kFamiliesReserved; }},
           Case{"layer 5", Errc::corrupt, [](L& l) { l.family = UINT32_MAX; }},
           Case{"layer 5", Errc::corrupt, [](L& l) { l.tail[439] = std::byte{1}; }},
           Case{"layer 5", Errc::corrupt, [](L& l) { l.tail_bytes = 441; }},
           Case{"layer 5", Errc::corrupt, [](L& l) { l.tail_bytes = 65535; }},
           Case{"ends in a tag", Errc::corrupt, [](L& l) { l.tail_bytes = 3; }},
           Case{"without a tag", Errc::corrupt, [](L& l) { l.tail_bytes = 4; }},
           Case{"longer", Errc::corrupt, [](L& l) { l.tail_bytes = 4, l.tail[2] = std::byte{1}; }},
           Case{"field 3", Errc::too_new, [](L& l) { l.tail_bytes = 4, l.tail[0] = std::byte{3}; }},
           Case{"index entry", Errc::corrupt, [](L& l) { l.root = 256; }},
           Case{"index entry", Errc::corrupt, [](L& l) { l.root = uint64_t{1} << 63; }},
       }) {
    LayerRecord layer = some_layer();
    each.change(layer);
    expect_error(decode_layer(view_of(layer)), each.code, each.text);
  }
}

TEST(Catalog, unknown_even_fields_of_a_layer_are_kept) {
  LayerRecord layer = some_layer();
  const std::string_view fields("\x08\x00\x03\x00new\xfe\xff\x00\x00", 11);
  layer.tail_bytes = static_cast<uint16_t>(fields.size());
  std::memcpy(layer.tail.data(), fields.data(), fields.size());
  const auto decoded = decode_layer(view_of(layer));
  ASSERT_TRUE(decoded) << text_of(decoded.error());
  EXPECT_TRUE(same(view_of(*decoded), view_of(layer)));
}

TEST(Catalog, kinds) {
  EXPECT_EQ(*kind_of_record(Blob(kRecordBytes)), RecordKind::free);
  for (int kind = static_cast<int>(RecordKind::application) + 1; kind < 256; ++kind) {
    const Blob record(kRecordBytes, static_cast<std::byte>(kind));
    expect_error(kind_of_record(record), Errc::too_new, fmt::format("of kind {}", kind));
  }
  for (const size_t at : {1U, 100U, 511U}) {
    Blob record(kRecordBytes);
    record[at] = std::byte{1};
    expect_error(kind_of_record(record), Errc::corrupt, "not empty");
  }
}

TEST(Catalog, whatever_is_decoded_can_be_encoded) {
  Prng prng(2);
  int good = 0;
  for (int i = 0; i < 20000; ++i) {
    NameRecord record = *encode(random_named(prng));
    for (uint64_t changes = prng.below(3); changes > 0; --changes) {
      bytes_of(record)[prng.below(sizeof record)] = static_cast<std::byte>(prng.next());
    }
    const auto named = decode_name(view_of(record));
    if (!named) continue;
    ++good;
    EXPECT_TRUE(name_is_valid(named->name));
    EXPECT_NE(named->layer, 0U);
    const auto again = encode(*named);
    ASSERT_TRUE(again) << text_of(again.error());
    const auto same_again = decode_name(view_of(*again));
    ASSERT_TRUE(same_again);
    EXPECT_EQ(same_again->settings, named->settings);
    EXPECT_EQ(same_again->unknown, named->unknown);
  }
  EXPECT_GT(good, 5000);
}

}  // namespace
}  // namespace firn::format
