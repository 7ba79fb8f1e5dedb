// SPDX-License-Identifier: Apache-2.0
#include "serve/nbd_rules.h"

#include "base/units.h"

namespace firn::serve {

using wire::nbd::Command;
using wire::nbd::Errno;
using wire::nbd::Form;
using wire::nbd::Request;

namespace {

bool writes(Command command) {
  return command == Command::write || command == Command::trim || command == Command::write_zeroes;
}

NbdVerdict judge_flags(const Request& request, const NbdTerms& terms) {
  const auto unknown =
      static_cast<uint16_t>(request.flags & ~wire::nbd::allowed_flags(request.command, terms.form));
  if (unknown != 0) return {Errno::invalid, "the command does not take these flags"};
  if (request.command == Command::write && !has_payload(request, terms.form)) {
    return {Errno::invalid, "an extended write needs the payload flag"};
  }
  if (request.command == Command::block_status && has_payload(request, terms.form) &&
      (terms.flags & wire::nbd::kBlockStatusPayload) == 0) {
    return {Errno::invalid, "block status takes no payload here"};
  }
  return {};
}

NbdVerdict judge_range(const Request& request, const NbdTerms& terms) {
  // With a filter, the length is the payload's; the effect's is judged when the payload is there.
  const bool filtered =
      request.command == Command::block_status && has_payload(request, terms.form);
  const Range range{request.offset, filtered ? 0 : request.length};
  if (range.within(terms.bytes)) return {};
  const bool fills = request.command == Command::write || request.command == Command::write_zeroes;
  return {fills ? Errno::no_space : Errno::invalid,
          "the request reaches past the end of the export"};
}

}  // namespace

NbdVerdict judge(const Request& request, const NbdTerms& terms) {
  if (static_cast<size_t>(request.command) >= wire::nbd::kCommands) {
    return {Errno::invalid, "the command is unknown"};
  }
  if (const NbdVerdict flags = judge_flags(request, terms); !flags.good()) return flags;
  if (writes(request.command) && (terms.flags & wire::nbd::kReadOnly) != 0) {
    return {Errno::perm, "the export is read-only"};
  }
  if (request.command == Command::flush) {
    if (request.offset == 0 && request.length == 0) return {};
    return {Errno::invalid, "flush takes neither offset nor length"};
  }
  if (const NbdVerdict range = judge_range(request, terms); !range.good()) return range;
  if (request.command == Command::read && request.length > wire::nbd::kPayloadMax) {
    return {Errno::invalid, "the read is longer than 64 MiB"};
  }
  if (request.command == Command::block_status) {
    if (!terms.has_contexts) return {Errno::invalid, "no metadata context was selected"};
    if (request.length == 0) return {Errno::invalid, "block status of no bytes"};
  }
  return {};
}

bool payload_is_believable(const Request& request, Form form) {
  return !has_payload(request, form) || request.length <= wire::nbd::kPayloadMax;
}

Errno errno_for(Errc code) {
  switch (code) {
    case Errc::no_space:
      return Errno::no_space;
    case Errc::invalid:
      return Errno::invalid;
    case Errc::unsupported:
      return Errno::unsupported;
    case Errc::cancelled:
      return Errno::shutdown;
    case Errc::io:
    case Errc::corrupt:
    case Errc::not_found:
    case Errc::exists:
    case Errc::too_new:
    case Errc::busy:
    case Errc::fenced:
    case Errc::timed_out:
      return Errno::io;
  }
  return Errno::io;
}

}  // namespace firn::serve
