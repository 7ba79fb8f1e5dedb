// SPDX-License-Identifier: Apache-2.0
#include "serve/nbd_rules.h"

#include <gtest/gtest.h>

#include "base/prng.h"
#include "base/units.h"
#include "serve/exports.h"
#include "serve/log.h"

namespace firn::serve {
namespace {

using wire::nbd::Command;
using wire::nbd::Errno;
using wire::nbd::Form;
using wire::nbd::Request;

TEST(NbdRules, a_good_request_lies_within_the_export) {
  Prng prng(3);
  uint64_t good = 0;
  for (int i = 0; i < 200000; ++i) {
    const NbdTerms terms{static_cast<Form>(prng.below(3)), static_cast<uint16_t>(prng.next()),
                         prng.one_in(4) ? prng.next() : prng.below(1 << 20), prng.one_in(2)};
    const Request request{static_cast<uint16_t>(prng.one_in(2) ? 0 : prng.next() & 0x3f),
                          static_cast<Command>(prng.below(9)), 0,
                          prng.one_in(3) ? prng.next() : prng.below(1 << 20),
                          prng.one_in(3) ? prng.next() : prng.below(1 << 20)};
    if (request.command == Command::disconnect || !judge(request, terms).good()) continue;
    ++good;
    ASSERT_LT(static_cast<size_t>(request.command), wire::nbd::kCommands);
    ASSERT_EQ(request.flags & ~wire::nbd::allowed_flags(request.command, terms.form), 0);
    const bool filtered =
        request.command == Command::block_status && has_payload(request, terms.form);
    const Range effect{request.offset, request.length};
    ASSERT_TRUE(filtered || effect.within(terms.bytes));
    if (request.command == Command::write || request.command == Command::trim ||
        request.command == Command::write_zeroes) {
      ASSERT_EQ(terms.flags & wire::nbd::kReadOnly, 0);
    }
  }
  EXPECT_GT(good, 1000u);
}

TEST(NbdRules, payloads_beyond_belief) {
  using wire::nbd::kPayloadMax;
  EXPECT_TRUE(payload_is_believable({0, Command::write, 0, 0, kPayloadMax}, Form::simple));
  EXPECT_FALSE(payload_is_believable({0, Command::write, 0, 0, kPayloadMax + 1}, Form::simple));
  EXPECT_TRUE(payload_is_believable({0, Command::trim, 0, 0, UINT64_MAX}, Form::extended));
  EXPECT_FALSE(payload_is_believable({wire::nbd::kFlagPayloadLen, Command::trim, 0, 0, UINT64_MAX},
                                     Form::extended));
}

TEST(Log, hostile_text_becomes_printable) {
  EXPECT_EQ(printable("disk-1@x"), "disk-1@x");
  EXPECT_EQ(printable("a\nb\x1b[31m\\"), "a\\x0ab\\x1b[31m\\x5c");
  EXPECT_EQ(printable("\xc2\x9b"), "\\xc2\x9b");
  EXPECT_EQ(printable(std::string(500, 'a')).size(), 128u + 3);
}

}  // namespace
}  // namespace firn::serve
