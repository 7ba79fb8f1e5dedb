// SPDX-License-Identifier: Apache-2.0
#include "archive/places.h"

#include <algorithm>
#include <map>

namespace firn::archive {
namespace {

// What of it begins at `first`.
Place tail_of(const Place& place, uint64_t first) {
  Place tail = place;
  tail.first = first;
  tail.count = place.end() - first;
  tail.slot = static_cast<uint16_t>(place.slot + (first - place.first));
  return tail;
}

}  // namespace

// Painted in the order of age: what comes later covers what is there.
std::vector<Place> settled(std::vector<Place> places) {
  std::ranges::stable_sort(places, {}, &Place::segment);
  std::map<uint64_t, Place> painted;  // By first chunk.
  for (const Place& place : places) {
    auto at = painted.lower_bound(place.first);
    if (at != painted.begin() && std::prev(at)->second.end() > place.first) {
      Place& before = std::prev(at)->second;
      if (before.end() > place.end()) {
        at = painted.emplace_hint(at, place.end(), tail_of(before, place.end()));
      }
      before.count = place.first - before.first;
    }
    while (at != painted.end() && at->first < place.end()) {
      const Place covered = at->second;
      at = painted.erase(at);
      if (covered.end() <= place.end()) continue;
      at = painted.emplace_hint(at, place.end(), tail_of(covered, place.end()));
    }
    painted.emplace_hint(at, place.first, place);
  }
  places.clear();
  for (const auto& [first, place] : painted) places.push_back(place);
  return places;
}

}  // namespace firn::archive
