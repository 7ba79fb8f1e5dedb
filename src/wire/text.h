// SPDX-License-Identifier: Apache-2.0
// The small texts that people and programs hand us: sizes, yes and no, names of disks.
//
// Contract:
//  X1  Every function takes any bytes at all and answers with a value or a sentence that quotes
//      what was wrong (shortened, with control characters replaced).
//  X2  parse_size(text_of_size_exact(n)) == n.
//
// Does not know whether a disk of that name exists, or whether a size is sensible for it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

namespace firn::wire {

inline constexpr size_t kDiskNameBytesMax = 128;

// "10G", "512M", "1.5T", "4096", "64KiB": binary units as qemu-img has them, a bare number is
// bytes. Fractions are exact to the byte, rounded down.
Result<uint64_t> parse_size(std::string_view text);
// For people: "10 GiB", "1.5 TiB", "512 B". At most one digit after the point.
std::string text_of_size(uint64_t bytes);
// For programs and round trips: the largest unit that divides it, "10G", "1025K", "513".
std::string text_of_size_exact(uint64_t bytes);

// on, off, yes, no, true, false, 1, 0.
Result<bool> parse_switch(std::string_view text);

// The rule of disk/disks.h. The answer names the offending character.
Result<void> check_disk_name(std::string_view name);
// DISK@SNAPSHOT, each by the same rule.
Result<void> check_snapshot_name(std::string_view name);
// Either.
Result<void> check_any_name(std::string_view name);
struct NameParts {
  std::string_view disk;
  std::string_view snapshot;  // Empty: there is no '@'.
};
NameParts split_name(std::string_view name);

// What somebody sent, fit for one line of a log or a terminal: control characters and bytes outside
// ASCII become '?', and anything beyond `bytes_max` becomes "...".
std::string printable(std::string_view text, size_t bytes_max = 80);

}  // namespace firn::wire
