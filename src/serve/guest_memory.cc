// SPDX-License-Identifier: Apache-2.0
#include "serve/guest_memory.h"

#include <algorithm>

#include "base/units.h"

namespace firn::serve {
namespace {

bool overlap(const wire::vhost::Region& a, const wire::vhost::Region& b) {
  return Range{a.guest, a.bytes}.overlaps({b.guest, b.bytes}) ||
         Range{a.user, a.bytes}.overlaps({b.user, b.bytes});
}

}  // namespace

Result<void> GuestMemory::add(const wire::vhost::Region& region, const Fd& fd) {
  if (slots_.size() >= kSlotsMax) {
    return fail(Errc::invalid, "more than {} memory regions", kSlotsMax);
  }
  for (const Slot& slot : slots_) {
    if (!overlap(slot.region, region)) continue;
    return fail(Errc::invalid, "memory region {:#x} of {:#x} bytes overlaps the one at {:#x}",
                region.guest, region.bytes, slot.region.guest);
  }
  const std::string what = fmt::format("guest memory at {:#x}", region.guest);
  std::unique_ptr<SharedMap> map = TRY(SharedMap::make(fd, region.offset, region.bytes, what));
  const auto place = std::find_if(slots_.begin(), slots_.end(), [&](const Slot& slot) {
    return slot.region.guest > region.guest;
  });
  slots_.insert(place, Slot{region, std::move(map)});
  return ok;
}

Result<void> GuestMemory::remove(const wire::vhost::Region& region) {
  for (auto slot = slots_.begin(); slot != slots_.end(); ++slot) {
    const wire::vhost::Region& there = slot->region;
    if (there.guest != region.guest || there.user != region.user || there.bytes != region.bytes) {
      continue;
    }
    slots_.erase(slot);
    return ok;
  }
  return fail(Errc::not_found, "there is no memory region of {:#x} bytes at {:#x}", region.bytes,
              region.guest);
}

const GuestMemory::Slot* GuestMemory::slot_of(uint64_t guest) const {
  const auto after =
      std::upper_bound(slots_.begin(), slots_.end(), guest,
                       [](uint64_t at, const Slot& slot) { return at < slot.region.guest; });
  if (after == slots_.begin()) return nullptr;
  const Slot& slot = *std::prev(after);
  return guest - slot.region.guest < slot.region.bytes ? &slot : nullptr;
}

bool GuestMemory::find(uint64_t guest, uint64_t bytes, std::vector<::iovec>& into) const {
  if (bytes > UINT64_MAX - guest) return false;
  const size_t before = into.size();
  while (bytes > 0) {
    const Slot* const slot = slot_of(guest);
    if (slot == nullptr) {
      into.resize(before);
      return false;
    }
    const uint64_t within = guest - slot->region.guest;
    const uint64_t part = std::min(bytes, slot->region.bytes - within);
    into.push_back({slot->map->data() + within, static_cast<size_t>(part)});
    guest += part;
    bytes -= part;
  }
  return true;
}

std::byte* GuestMemory::find_whole(uint64_t guest, uint64_t bytes) const {
  const Slot* const slot = slot_of(guest);
  if (slot == nullptr) return nullptr;
  const Range inside{guest - slot->region.guest, bytes};
  return inside.within(slot->region.bytes) ? slot->map->data() + inside.at : nullptr;
}

std::byte* GuestMemory::find_user(uint64_t user, uint64_t bytes) const {
  for (const Slot& slot : slots_) {
    if (user < slot.region.user) continue;
    const Range inside{user - slot.region.user, bytes};
    if (inside.within(slot.region.bytes)) return slot.map->data() + inside.at;
  }
  return nullptr;
}

bool GuestMemory::broken() const {
  return std::any_of(slots_.begin(), slots_.end(),
                     [](const Slot& slot) { return slot.map->broken(); });
}

}  // namespace firn::serve
