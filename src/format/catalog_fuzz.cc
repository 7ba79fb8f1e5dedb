// SPDX-License-Identifier: Apache-2.0
// Any bytes as catalog records of 512 bytes. A name that is accepted can be written, and what is
// read back is the same; a layer that is accepted is possible.
#include <algorithm>
#include <array>
#include <cstdint>

#include "base/check.h"
#include "format/catalog.h"
#include "format/inspect.h"

namespace {

using namespace firn;
using namespace firn::format;

void name(View record) {
  const Result<Named> named = decode_name(record);
  if (!named) return;
  CHECK(named->kind == RecordKind::disk || named->kind == RecordKind::snapshot);
  CHECK(name_is_valid(named->name) && named->layer != 0);
  const Result<NameRecord> written = encode(*named);
  CHECK(written, "{}", text_of(written.error()));
  const Result<Named> again = decode_name(view_of(*written));
  CHECK(again && again->name == named->name && again->layer == named->layer);
  CHECK(again->settings == named->settings && again->unknown == named->unknown);
  CHECK(again->uuid == named->uuid && again->created_ns == named->created_ns);
}

void layer(View record) {
  const Result<LayerRecord> layer = decode_layer(record);
  if (!layer) return;
  CHECK(layer->layer != 0 && layer->family != 0 && layer->parent != layer->layer);
  CHECK(layer->bytes <= kDiskBytesMax && static_cast<int>(layer->root_level) < kLevelMax);
  CHECK(decode_index_entry(layer->root));
  CHECK(layer->family < kFamiliesReserved && layer->tail_bytes <= layer->tail.size());
  CHECK(std::ranges::equal(view_of(*layer), record.first(kRecordBytes)), "kept verbatim");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  View input = std::as_bytes(std::span(data, size));
  CHECK(!inspect(Artifact::catalog_page, input).empty());
  do {
    std::array<std::byte, kRecordBytes> record{};
    const View piece = input.first(std::min(input.size(), record.size()));
    std::ranges::copy(piece, record.begin());
    input = input.subspan(piece.size());
    const Result<RecordKind> kind = kind_of_record(record);
    CHECK(!kind || *kind != RecordKind::free || all_zero(record));
    name(record);
    layer(record);
  } while (!input.empty());
  return 0;
}
