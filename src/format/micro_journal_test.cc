// SPDX-License-Identifier: Apache-2.0
#include "format/micro_journal.h"

#include <gtest/gtest.h>

#include "format/format_test_util.h"

namespace firn::format {
namespace {

constexpr uint64_t kEpoch = 7;
constexpr size_t kHeader = sizeof(SlotHeader);

Uuid some_uuid() {
  Prng prng(99);
  return random_uuid(prng);
}
const Uuid kUuid = some_uuid();

Blob slot_with(SlotHeader header, View payload, size_t slot_bytes) {
  seal(kUuid, header, payload);
  Blob slot = blob_of(view_of(header));
  slot.insert(slot.end(), payload.begin(), payload.end());
  slot.resize(slot_bytes);
  return slot;
}

Blob some_slot(Prng& prng, size_t payload_bytes, size_t slot_bytes) {
  SlotHeader header;
  header.commit_id = 1 + prng.below(UINT64_MAX);
  header.oldest_needed = header.commit_id;
  header.epoch = kEpoch;
  header.parts = static_cast<uint16_t>(1 + prng.below(kSlotPartsMax));
  header.part = static_cast<uint16_t>(prng.below(header.parts));
  Blob payload(payload_bytes);
  fill(prng, payload);
  return slot_with(header, payload, slot_bytes);
}

SlotState state_of(View slot, uint64_t epoch = kEpoch, const Uuid& uuid = kUuid) {
  SlotHeader header;
  return read_slot(uuid, epoch, slot, header);
}

// Any header under a right checksum.
void reseal(Bytes slot) {
  auto header = load<SlotHeader>(slot);
  header.header_crc = crc32c(view_of(header).first(60), crc32c(kUuid));
  put(slot, 0, header);
}

TEST(MicroJournal, a_slot_makes_the_round_trip) {
  Prng prng(1);
  for (int i = 0; i < 2000; ++i) {
    const size_t slot_bytes = size_t{512} << prng.below(8);
    const size_t payload_bytes = 1 + prng.below(slot_bytes - kHeader);
    const Blob slot = some_slot(prng, payload_bytes, slot_bytes);
    SlotHeader header;
    ASSERT_EQ(read_slot(kUuid, kEpoch, slot, header), SlotState::valid);
    EXPECT_TRUE(same(view_of(header), View(slot).first(kHeader)));
    EXPECT_EQ(header.payload_bytes, payload_bytes);
    EXPECT_LT(header.part, header.parts);
  }
}

TEST(MicroJournal, slots_of_other_pools_and_epochs_are_nothing) {
  Prng prng(2);
  const Blob slot = some_slot(prng, 100, 512);
  EXPECT_EQ(state_of(slot), SlotState::valid);
  EXPECT_EQ(state_of(slot, kEpoch - 1), SlotState::nothing);
  EXPECT_EQ(state_of(slot, kEpoch + 1), SlotState::nothing);
  EXPECT_EQ(state_of(slot, 0), SlotState::nothing);
  EXPECT_EQ(state_of(slot, kEpoch, random_uuid(prng)), SlotState::nothing);
  EXPECT_EQ(state_of(Blob(512)), SlotState::nothing) << "pre-written with zeroes";
  EXPECT_EQ(state_of(Blob(512, std::byte{0xff})), SlotState::nothing);
  EXPECT_EQ(state_of({}), SlotState::nothing);
  EXPECT_EQ(state_of(View(slot).first(63)), SlotState::nothing);
}

TEST(MicroJournal, every_flipped_bit_of_header_and_payload_makes_it_nothing) {
  Prng prng(3);
  constexpr size_t kPayload = 300;
  Blob slot = some_slot(prng, kPayload, 512);
  for (size_t bit = 0; bit < (kHeader + kPayload) * 8; ++bit) {
    flip(slot, bit);
    EXPECT_EQ(state_of(slot), SlotState::nothing) << "bit " << bit;
    flip(slot, bit);
  }
}

TEST(MicroJournal, every_tear_makes_it_nothing) {
  Prng prng(4);
  const Blob before = some_slot(prng, 448, 512);
  const Blob after = some_slot(prng, 448, 512);
  for (size_t cut = 8; cut < 512; cut += 8) {
    Blob torn = after;
    std::copy(before.begin() + static_cast<ptrdiff_t>(cut), before.end(),
              torn.begin() + static_cast<ptrdiff_t>(cut));
    EXPECT_EQ(state_of(torn), SlotState::nothing) << "new up to byte " << cut;
    torn = before;
    std::copy(after.begin() + static_cast<ptrdiff_t>(cut), after.end(),
              torn.begin() + static_cast<ptrdiff_t>(cut));
    EXPECT_EQ(state_of(torn), SlotState::nothing) << "new from byte " << cut;
  }
}

TEST(MicroJournal, hostile_headers_under_a_right_checksum) {
  struct Case {
    const char* what;
    void (*change)(SlotHeader&);
    SlotState state;
  };
  for (const Case& each : {
           Case{"as it was", [](SlotHeader&) {}, SlotState::valid},
           Case{"no id", [](SlotHeader& h) { h.commit_id = 0; }, SlotState::nothing},
           Case{"no parts", [](SlotHeader& h) { h.parts = 0; }, SlotState::nothing},
           Case{"past the chain", [](SlotHeader& h) { h.part = h.parts; }, SlotState::nothing},
           Case{"too long a chain", [](SlotHeader& h) { h.parts = 4097; }, SlotState::nothing},
           Case{"no payload", [](SlotHeader& h) { h.payload_bytes = 0; }, SlotState::nothing},
           Case{"one more", [](SlotHeader& h) { h.payload_bytes = 449; }, SlotState::nothing},
           Case{"2^32", [](SlotHeader& h) { h.payload_bytes = UINT32_MAX; }, SlotState::nothing},
           Case{"2^32 - header", [](SlotHeader& h) { h.payload_bytes = 0u - 64u; },
                SlotState::nothing},
           Case{"fewer bytes", [](SlotHeader& h) { h.payload_bytes = 99; }, SlotState::nothing},
           Case{"another version", [](SlotHeader& h) { h.version = 2; }, SlotState::too_new},
           Case{"reserved0", [](SlotHeader& h) { h.reserved0 = 1; }, SlotState::too_new},
           Case{"reserved1", [](SlotHeader& h) { h.reserved1 = 1; }, SlotState::too_new},
           Case{"reserved2", [](SlotHeader& h) { h.reserved2 = 1; }, SlotState::too_new},
           Case{"unknown flag", [](SlotHeader& h) { h.flags = 2; }, SlotState::too_new},
           Case{"dense", [](SlotHeader& h) { h.flags = kSlotDense; }, SlotState::valid},
           Case{"needs none", [](SlotHeader& h) { h.oldest_needed = 0; }, SlotState::nothing},
           Case{"needs a later one", [](SlotHeader& h) { h.oldest_needed = h.commit_id + 1; },
                SlotState::nothing},
           Case{"new, but of another epoch",
                [](SlotHeader& h) {
                  h.version = 2;
                  h.epoch = kEpoch - 1;
                },
                SlotState::nothing},
       }) {
    Prng prng(5);
    Blob slot = some_slot(prng, 100, 512);
    auto header = load<SlotHeader>(slot);
    each.change(header);
    put(Bytes(slot), 0, header);
    reseal(slot);
    EXPECT_EQ(state_of(slot), each.state) << each.what;
  }
}

TEST(MicroJournal, a_chain_is_slots_under_one_id) {
  Prng prng(6);
  Blob payload(1000);
  fill(prng, payload);
  constexpr size_t kPiece = 512 - kHeader;
  Blob joined;
  const auto parts = static_cast<uint16_t>((payload.size() + kPiece - 1) / kPiece);
  for (uint16_t part = 0; part < parts; ++part) {
    SlotHeader header;
    header.commit_id = 41;
    header.oldest_needed = 40;
    header.epoch = kEpoch;
    header.part = part;
    header.parts = parts;
    const size_t at = part * kPiece;
    const Blob slot =
        slot_with(header, View(payload).subspan(at, std::min(kPiece, payload.size() - at)), 512);
    SlotHeader read;
    ASSERT_EQ(read_slot(kUuid, kEpoch, slot, read), SlotState::valid);
    EXPECT_EQ(read.commit_id, 41U);
    EXPECT_EQ(read.part, part);
    EXPECT_EQ(read.parts, 3);
    const View piece = View(slot).subspan(kHeader, read.payload_bytes);
    joined.insert(joined.end(), piece.begin(), piece.end());
  }
  EXPECT_EQ(joined, payload);
}

// --- records

// Writes down what it is told, and that it is told nothing impossible.
class Notes final : public RecordSink {
 public:
  Result<void> page(PageNo page, uint32_t crc, bool fresh) override {
    EXPECT_LE(page, kPageNoMax);
    text += fmt::format("page {} crc {:x}{}\n", page, crc, fresh ? " fresh" : "");
    return ok;
  }
  Result<void> words(size_t first, View words) override {
    EXPECT_FALSE(text.empty()) << "words of no page";
    EXPECT_GT(words.size(), 0U);
    EXPECT_EQ(words.size() % 8, 0U);
    EXPECT_LE(first + words.size() / 8, kPageWords);
    if (refuse) return fail(Errc::io, "the sink is full");
    text += fmt::format("  {} words at {}: {:x}\n", words.size() / 8, first, crc32c(words));
    return ok;
  }
  std::string text;
  bool refuse = false;
};

void append(Blob& payload, View bytes) {
  payload.insert(payload.end(), bytes.begin(), bytes.end());
}

// A random valid payload, what a walk must say about it, and where its records end.
struct Sample {
  Blob payload;
  std::string text;
  std::vector<size_t> ends;
};
Sample random_payload(Prng& prng, uint64_t pages) {
  Sample sample;
  for (uint64_t i = 0; i < pages; ++i) {
    PageRecord record;
    record.page = prng.below(kPageNoMax + 1);
    record.crc = static_cast<uint32_t>(prng.next());
    record.flags = static_cast<uint16_t>(prng.below(2));
    record.runs = static_cast<uint16_t>(prng.below(4));
    append(sample.payload, view_of(record));
    sample.text += fmt::format("page {} crc {:x}{}\n", record.page.get(), record.crc.get(),
                               record.flags != 0 ? " fresh" : "");
    for (unsigned at = 0; at < record.runs; ++at) {
      WordRun run;
      run.words = static_cast<uint16_t>(1 + prng.below(prng.one_in(4) ? kPageWords : 4));
      run.first = static_cast<uint16_t>(prng.below(kPageWords - run.words + 1));
      Blob words(size_t{run.words} * 8);
      fill(prng, words);
      append(sample.payload, view_of(run));
      append(sample.payload, words);
      sample.text +=
          fmt::format("  {} words at {}: {:x}\n", run.words.get(), run.first.get(), crc32c(words));
    }
    sample.ends.push_back(sample.payload.size());
  }
  return sample;
}

TEST(MicroJournal, records_are_walked_as_they_were_written) {
  Prng prng(7);
  for (int i = 0; i < 500; ++i) {
    const Sample sample = random_payload(prng, 1 + prng.below(5));
    Notes notes;
    const auto walked = walk_records(sample.payload, notes);
    ASSERT_TRUE(walked) << text_of(walked.error());
    EXPECT_EQ(notes.text, sample.text);
  }
}

TEST(MicroJournal, a_payload_cut_anywhere_but_between_records_is_corrupt) {
  Prng prng(8);
  const Sample sample = random_payload(prng, 6);
  for (size_t cut = 1; cut < sample.payload.size(); ++cut) {
    Notes notes;
    const auto walked = walk_records(View(sample.payload).first(cut), notes);
    const bool between = std::ranges::find(sample.ends, cut) != sample.ends.end();
    EXPECT_EQ(walked.has_value(), between) << cut;
    if (!between) expect_error(walked, Errc::corrupt, "journal:");
  }
}

TEST(MicroJournal, hostile_lengths_are_refused_before_the_sink_sees_them) {
  struct Case {
    const char* text;
    PageRecord record;
    WordRun run;
    Errc code;
  };
  for (const Case& each : {
           Case{"cannot be", {.page = kPageNoMax + 1, .runs = 1}, {0, 1, 0}, Errc::corrupt},
           Case{
               "cannot be", {.page = (uint64_t{1} << 56) - 1, .runs = 1}, {0, 1, 0}, Errc::corrupt},
           Case{"type 1,", {.page = uint64_t{1} << 56 | 3, .runs = 1}, {0, 1, 0}, Errc::too_new},
           Case{"type 255", {.page = UINT64_MAX, .runs = 1}, {0, 1, 0}, Errc::too_new},
           Case{"flags", {.page = 1, .runs = 1, .flags = 2}, {0, 1, 0}, Errc::too_new},
           Case{"flags", {.page = 1, .runs = 1, .flags = 0xffff}, {0, 1, 0}, Errc::too_new},
           Case{"0 words", {.page = 1, .runs = 1}, {0, 0, 0}, Errc::corrupt},
           Case{"512 words at 1", {.page = 1, .runs = 1}, {1, 512, 0}, Errc::corrupt},
           Case{"1 words at 512", {.page = 1, .runs = 1}, {512, 1, 0}, Errc::corrupt},
           Case{"65535 words", {.page = 1, .runs = 1}, {65535, 65535, 0}, Errc::corrupt},
           Case{"3 words at 0", {.page = 1, .runs = 1}, {0, 3, 0}, Errc::corrupt},  // 2 are there.
           Case{"1 words", {.page = 1, .runs = 1}, {0, 1, 1}, Errc::corrupt},       // Reserved.
           Case{"ends in a run", {.page = 1, .runs = 2}, {0, 2, 0}, Errc::corrupt},
           Case{"ends in a run", {.page = 1, .runs = 65535}, {0, 2, 0}, Errc::corrupt},
           Case{"page record begins", {.page = 1, .runs = 1}, {0, 1, 0}, Errc::corrupt},
       }) {
    Blob payload = blob_of(view_of(each.record));
    append(payload, view_of(each.run));
    payload.resize(payload.size() + 16);
    Notes notes;
    SCOPED_TRACE(each.text);
    expect_error(walk_records(payload, notes), each.code, each.text);
  }
}

TEST(MicroJournal, an_error_of_the_sink_ends_the_walk) {
  Prng prng(9);
  Notes notes;
  notes.refuse = true;
  Blob payload = blob_of(view_of(PageRecord{.page = 3, .runs = 1}));
  append(payload, view_of(WordRun{0, 1, 0}));
  payload.resize(payload.size() + 8);
  expect_error(walk_records(payload, notes), Errc::io, "the sink is full");
}

TEST(MicroJournal, random_payloads_are_walked_or_refused) {
  Prng prng(10);
  for (int i = 0; i < 5000; ++i) {
    Sample sample = random_payload(prng, 1 + prng.below(3));
    for (uint64_t changes = 1 + prng.below(4); changes > 0; --changes) {
      sample.payload[prng.below(sample.payload.size())] = static_cast<std::byte>(prng.next());
    }
    Notes notes;  // Checks what it sees.
    const auto walked = walk_records(sample.payload, notes);
    if (!walked) {
      EXPECT_TRUE(text_of(walked.error()).starts_with("journal: "));
    }
  }
}

}  // namespace
}  // namespace firn::format
