// SPDX-License-Identifier: Apache-2.0
#include "archive/packer.h"

#include <zstd.h>

#include "base/check.h"

namespace firn::archive {

using format::GroupEntry;
using format::kGroupRaw;
using format::kSealBytes;

struct Packer::State {
  ZSTD_CCtx* compress = nullptr;  // Made when first needed: readers need none.
  ZSTD_DCtx* decompress = nullptr;
  std::vector<std::byte> room;
  std::vector<std::byte> scratch;
};

Packer::Packer(int level) : state_(std::make_unique<State>()), level_(level) {}
Packer::~Packer() {
  ZSTD_freeCCtx(state_->compress);
  ZSTD_freeDCtx(state_->decompress);
}

std::vector<std::byte>& Packer::scratch() { return state_->scratch; }

GroupEntry Packer::pack(const Seal& seal, uint32_t number, View plain, std::vector<std::byte>& to) {
  if (state_->compress == nullptr) state_->compress = ZSTD_createCCtx();
  CHECK(state_->compress != nullptr && !plain.empty());
  std::vector<std::byte>& room = state_->room;
  room.resize(ZSTD_compressBound(plain.size()));
  const size_t packed = ZSTD_compressCCtx(state_->compress, room.data(), room.size(), plain.data(),
                                          plain.size(), level_);
  const bool raw = ZSTD_isError(packed) != 0 || packed >= plain.size();
  const View body = raw ? plain : View(room).first(packed);
  const size_t at = to.size();
  const size_t stored = body.size() + (seal.active() ? kSealBytes : 0);
  to.resize(at + stored);
  const Bytes place = Bytes(to).subspan(at);
  if (seal.active()) {
    seal.close(number, body, place);
  } else {
    std::memcpy(place.data(), body.data(), body.size());
  }
  return {static_cast<uint32_t>(stored) | (raw ? kGroupRaw : 0), crc32c(place)};
}

Result<void> Packer::unpack(const Seal& seal, uint32_t number, const GroupEntry& entry, View stored,
                            Bytes to) {
  if (crc32c(stored) != entry.crc) {
    return fail(Errc::corrupt, "group {}: crc {:08x}, expected {:08x}", number, crc32c(stored),
                entry.crc.get());
  }
  const bool raw = (entry.stored & kGroupRaw) != 0;
  View body = stored;
  if (seal.active()) {
    if (stored.size() < kSealBytes) return fail(Errc::corrupt, "group {} is too short", number);
    const Bytes place = [&] {
      if (raw) return to;
      state_->room.resize(stored.size() - kSealBytes);
      return Bytes(state_->room);
    }();
    if (place.size() + kSealBytes != stored.size()) {
      return fail(Errc::corrupt, "group {} has {} bytes", number, stored.size());
    }
    TRY(seal.open(number, stored, place));
    if (raw) return ok;
    body = place;
  }
  if (raw) {
    if (body.size() != to.size()) {
      return fail(Errc::corrupt, "group {} has {} bytes", number, body.size());
    }
    std::memcpy(to.data(), body.data(), to.size());
    return ok;
  }
  if (state_->decompress == nullptr) state_->decompress = ZSTD_createDCtx();
  const size_t got =
      ZSTD_decompressDCtx(state_->decompress, to.data(), to.size(), body.data(), body.size());
  if (ZSTD_isError(got) == 0 && got == to.size()) return ok;
  return fail(Errc::corrupt, "group {}: it does not decompress to {} bytes", number, to.size());
}

}  // namespace firn::archive
