// SPDX-License-Identifier: Apache-2.0
#include "format/archive_label.h"

#include "base/check.h"

namespace firn::format {
namespace {

constexpr size_t kCovered = 12;

Result<void> check_choices(const ArchiveLabel& label) {
  const uint64_t segment = label.segment_bytes;
  if (segment < kSegmentBytesMin || segment > kSegmentBytesMax) {
    return fail(Errc::corrupt, "archive label: segments of {} bytes cannot be", segment);
  }
  const auto source = static_cast<uint8_t>(label.key_source);
  if (source > static_cast<uint8_t>(KeySource::passphrase)) {
    return fail(Errc::too_new, "archive label: key source {} is unknown to this version", source);
  }
  const auto level = static_cast<uint8_t>(label.level);
  const auto sample = static_cast<uint8_t>(label.sample);
  if (level < 1 || level > 19 || sample > 16) {
    return fail(Errc::corrupt, "archive label: level {}, sampling {} cannot be", level, sample);
  }
  const auto n = static_cast<uint8_t>(label.scrypt_n);
  const auto r = static_cast<uint8_t>(label.scrypt_r);
  const auto p = static_cast<uint8_t>(label.scrypt_p);
  const bool scrypt = source == static_cast<uint8_t>(KeySource::passphrase);
  // The work that a hostile label could make us do is bounded: 256 MiB, a few seconds.
  if (scrypt ? n < 10 || n > 18 || r < 1 || r > 8 || p < 1 || p > 4 : n != 0 || r != 0 || p != 0) {
    return fail(Errc::corrupt, "archive label: scrypt with 2^{}, {}, {} cannot be", n, r, p);
  }
  return ok;
}

}  // namespace

std::array<std::byte, kArchiveLabelBytes> encode(ArchiveLabel label) {
  CHECK(label.magic == kArchiveMagic && label.version == kArchiveVersion);
  label.crc = crc32c(view_of(label).subspan(kCovered));
  std::array<std::byte, kArchiveLabelBytes> bytes;
  std::memcpy(bytes.data(), &label, sizeof label);
  CHECK(decode_archive_label(bytes), "a label that we could not read back");
  return bytes;
}

Result<ArchiveLabel> decode_archive_label(View bytes) {
  if (bytes.size() < sizeof(ArchiveLabel)) {
    return fail(Errc::corrupt, "archive label: {} bytes where 512 were expected", bytes.size());
  }
  const auto label = load<ArchiveLabel>(bytes);
  if (label.magic != kArchiveMagic) {
    return fail(Errc::not_found, "archive label: no magic, this is not an archive");
  }
  const uint32_t expected = crc32c(view_of(label).subspan(kCovered));
  if (label.crc != expected) {
    return fail(Errc::corrupt, "archive label: crc {:08x}, expected {:08x}", label.crc.get(),
                expected);
  }
  if (label.version > kArchiveVersion) {
    return fail(Errc::too_new, "archive label: format version {}, this program knows {}",
                label.version.get(), kArchiveVersion);
  }
  if (label.version == 0) return fail(Errc::corrupt, "archive label: version 0");
  if ((label.incompat & ~kArchiveKnownIncompat) != 0) {
    return fail(Errc::too_new, "archive label: incompatible features {:#x} are unknown",
                label.incompat & ~kArchiveKnownIncompat);
  }
  if (label.compat == 0 && !all_zero(label.reserved)) {
    return fail(Errc::corrupt, "archive label: reserved bytes are not zero");
  }
  TRY(check_choices(label));
  return label;
}

}  // namespace firn::format
