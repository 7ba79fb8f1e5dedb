// SPDX-License-Identifier: Apache-2.0
#include "format/superblock.h"

#include "base/check.h"

namespace firn::format {
namespace {

constexpr size_t kCovered = 12;  // The checksum covers everything behind itself.

Result<void> check_geometry(const Superblock& superblock) {
  if (superblock.block_shift != std::byte{20} || superblock.grain_shift != std::byte{12} ||
      superblock.page_shift != std::byte{12}) {
    return fail(Errc::unsupported,
                "superblock: block, grain or page size is not 1 MiB, 4 KiB, 4 KiB");
  }
  const uint64_t slot_bytes = superblock.journal_slot_bytes;
  const uint64_t slots = superblock.journal_slots;
  if (slot_bytes < 512 || slot_bytes > 65536 || (slot_bytes & (slot_bytes - 1)) != 0 || slots < 2 ||
      slots > (uint64_t{1} << 32)) {
    return fail(Errc::corrupt, "superblock: a journal of {} slots of {} bytes cannot be", slots,
                slot_bytes);
  }
  const auto medium = static_cast<JournalMedium>(superblock.journal_medium);
  if (medium != JournalMedium::file && medium != JournalMedium::pmem) {
    return fail(Errc::too_new, "superblock: journal medium {} is unknown to this version",
                static_cast<unsigned>(superblock.journal_medium));
  }
  return ok;
}

}  // namespace

std::array<std::byte, 512> encode(Superblock superblock, uint16_t slot) {
  CHECK(superblock.magic == kSuperblockMagic && superblock.version == kPoolVersion);
  superblock.slot = slot;
  superblock.autoclear = superblock.autoclear & kKnownAutoclear;
  superblock.crc = crc32c(view_of(superblock).subspan(kCovered));
  std::array<std::byte, 512> bytes;
  std::memcpy(bytes.data(), &superblock, sizeof superblock);
  CHECK(decode_superblock(bytes, slot), "a superblock that we could not read back");
  return bytes;
}

Result<Superblock> decode_superblock(View bytes, uint16_t slot) {
  if (bytes.size() < sizeof(Superblock)) {
    return fail(Errc::corrupt, "superblock: {} bytes where 512 were expected", bytes.size());
  }
  const auto superblock = load<Superblock>(bytes);
  if (superblock.magic != kSuperblockMagic) {
    return fail(Errc::not_found, "superblock copy {}: no magic, this is not a pool", slot);
  }
  const uint32_t expected = crc32c(view_of(superblock).subspan(kCovered));
  if (superblock.crc != expected) {
    return fail(Errc::corrupt, "superblock copy {}: crc {:08x}, expected {:08x}", slot,
                superblock.crc.get(), expected);
  }
  if (superblock.version > kPoolVersion) {
    return fail(Errc::too_new, "superblock copy {}: format version {}, this program knows {}", slot,
                superblock.version.get(), kPoolVersion);
  }
  if (superblock.version == 0 || superblock.slot != slot) {
    return fail(Errc::corrupt, "superblock copy {}: it says that it is version {}, copy {}", slot,
                superblock.version.get(), superblock.slot.get());
  }
  if ((superblock.incompat & ~kKnownIncompat) != 0) {
    return fail(Errc::too_new, "superblock copy {}: incompatible features {:#x} are unknown", slot,
                superblock.incompat & ~kKnownIncompat);
  }
  const bool explained = (superblock.ro_compat & ~kKnownReadOnlyCompat) != 0 ||
                         (superblock.compat & ~kKnownCompat) != 0;
  if (!explained && !all_zero(superblock.reserved)) {
    return fail(Errc::corrupt, "superblock copy {}: reserved bytes are not zero", slot);
  }
  TRY(check_geometry(superblock));
  return superblock;
}

}  // namespace firn::format
