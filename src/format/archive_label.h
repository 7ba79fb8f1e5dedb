// SPDX-License-Identifier: Apache-2.0
// The label of an archive: the object `archive`, made once and never changed; a copy of it lies in
// every segment, so that the segments alone are the whole truth. docs/format/archive_label.md
//
// Two keys belong to an archive: the secret under which blocks are identified (HMAC-SHA-256), and
// the key that content is encrypted with. In an encrypted archive both are wrapped (AES-256-GCM) by
// a key made from a key file or a passphrase; else the secret lies in the clear and there is no
// content key.
#pragma once

#include <array>
#include <cstdint>

#include "base/bytes.h"
#include "base/result.h"
#include "format/page.h"

namespace firn::format {

inline constexpr std::array<char, 8> kArchiveMagic{'F', 'I', 'R', 'N', 'A', 'R', 'C', 'H'};
inline constexpr uint16_t kArchiveVersion = 1;
inline constexpr uint64_t kArchiveKnownIncompat = 0;
inline constexpr uint64_t kArchiveLabelBytes = 512;
inline constexpr uint64_t kSegmentBytesMin = 4 * kMiB;
inline constexpr uint64_t kSegmentBytesMax = 64 * kMiB;

enum class KeySource : uint8_t {
  none = 0,        // Not encrypted.
  file = 1,        // HKDF-SHA-256 of the file's bytes.
  passphrase = 2,  // scrypt.
};

struct ArchiveLabel {
  std::array<char, 8> magic = kArchiveMagic;
  le32 crc;  // crc32c of bytes [12, 512).
  le16 version = kArchiveVersion;
  std::byte key_source{};
  std::byte level{3};    // zstd.
  le64 incompat;         // Unknown bit: refuse to open.
  le64 compat;           // Unknown bit: ignore and preserve.
  Uuid uuid{};           // Of the archive.
  le64 created_ns;       // Wall clock.
  le32 segment_bytes;    // What a data segment aims at.
  std::byte sample{};    // Of 2^sample hashes one is in the hash map.
  std::byte scrypt_n{};  // log2; passphrase only.
  std::byte scrypt_r{};
  std::byte scrypt_p{};
  std::array<std::byte, 16> salt{};     // Of the wrapping key.
  std::array<std::byte, 12> nonce{};    // Of the wrapping.
  std::array<std::byte, 16> tag{};      // Of the wrapping.
  std::array<std::byte, 64> secrets{};  // Identity secret 32, content key 32; wrapped or not.
  // Zero, unless an unknown bit of compat explains it.
  std::array<std::byte, 340> reserved{};
};
static_assert(OnDisk<ArchiveLabel, kArchiveLabelBytes>);

std::array<std::byte, kArchiveLabelBytes> encode(ArchiveLabel label);
// Errc::not_found (no magic), corrupt, too_new (version, incompatible features).
Result<ArchiveLabel> decode_archive_label(View bytes);

}  // namespace firn::format
