// SPDX-License-Identifier: Apache-2.0
// Tagged fields at the end of a record: {le16 tag, le16 length, bytes}. docs/format/catalog.md
#pragma once

#include <cstring>
#include <string>

#include "base/bytes.h"
#include "base/result.h"

namespace firn::format {

struct TagHead {
  le16 tag;
  le16 length;
};
static_assert(kWire<TagHead> && sizeof(TagHead) == 4);

// Walks a tail's fields. `take(tag, value)` says whether it knows the tag, or what is wrong with
// it. Unknown odd tags are refused here; unknown even ones are the caller's to keep.
template <class Take>
Result<void> walk_tail(View tail, const std::string& whose, Take&& take) {
  while (!tail.empty()) {
    if (tail.size() < sizeof(TagHead)) {
      return fail(Errc::corrupt, "catalog: record '{}' ends in a tag", whose);
    }
    const auto head = load<TagHead>(tail);
    if (tail.size() < sizeof(TagHead) + head.length) {
      return fail(Errc::corrupt, "catalog: record '{}': tag {} is longer than the record", whose,
                  head.tag.get());
    }
    std::string value(head.length, '\0');
    std::memcpy(value.data(), tail.data() + sizeof(TagHead), head.length);
    tail = tail.subspan(sizeof(TagHead) + head.length);
    if (head.tag == 0) {
      return fail(Errc::corrupt, "catalog: record '{}': a field without a tag", whose);
    }
    const bool known = TRY(take(head.tag.get(), value));
    if (!known && head.tag % 2 != 0) {
      return fail(Errc::too_new, "catalog: record '{}' has field {}, unknown to this version",
                  whose, head.tag.get());
    }
  }
  return ok;
}

}  // namespace firn::format
