// SPDX-License-Identifier: Apache-2.0
#include "base/result.h"

#include <array>
#include <cerrno>
#include <cstring>
#include <string>

namespace firn {
namespace {

constexpr size_t kNotes = 1024;
// Thread-local: an error never crosses a thread without its sentence being copied first.
thread_local std::array<std::string, kNotes> notes;
thread_local uint16_t next_note = 0;

struct Row {
  Errc code;
  std::string_view name;
  int sys;
};
constexpr std::array<Row, 12> kRows{{
    {Errc::io, "io", EIO},
    {Errc::corrupt, "corrupt", EIO},
    {Errc::no_space, "no_space", ENOSPC},
    {Errc::not_found, "not_found", ENOENT},
    {Errc::exists, "exists", EEXIST},
    {Errc::invalid, "invalid", EINVAL},
    {Errc::unsupported, "unsupported", ENOTSUP},
    {Errc::too_new, "too_new", ENOTSUP},
    {Errc::busy, "busy", EBUSY},
    {Errc::fenced, "fenced", EIO},
    {Errc::cancelled, "cancelled", ECANCELED},
    {Errc::timed_out, "timed_out", ETIMEDOUT},
}};

const Row& row_of(Errc code) { return kRows[(static_cast<size_t>(code) - 1) % kRows.size()]; }

}  // namespace

std::string_view name_of(Errc code) { return row_of(code).name; }
int errno_of(Errc code) { return row_of(code).sys; }

Errc errc_of_errno(int32_t sys) {
  switch (sys) {
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      return Errc::no_space;
    case ENOENT:
      return Errc::not_found;
    case EEXIST:
      return Errc::exists;
    case EINVAL:
      return Errc::invalid;
    case EOPNOTSUPP:
    case ENOSYS:
      return Errc::unsupported;
    case EBUSY:
    case EADDRINUSE:
      return Errc::busy;
    case ECANCELED:
      return Errc::cancelled;
    case ETIMEDOUT:
    case ETIME:
      return Errc::timed_out;
    default:
      return Errc::io;
  }
}

Error fail_text(Errc code, int32_t sys, std::string text) {
  if (sys != 0) {
    text += " (";
    text += std::strerror(sys);
    text += ")";
  }
  next_note = static_cast<uint16_t>((next_note + 1) % kNotes);
  notes[next_note] = std::move(text);
  return Error{code, 0, next_note, sys};
}

std::string_view text_of(Error error) { return notes[error.note % kNotes]; }

}  // namespace firn
