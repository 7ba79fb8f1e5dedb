// SPDX-License-Identifier: Apache-2.0
// Any bytes as an answer of an S3 server: each document, each header. S1, S2, V1.
#include <cstdint>
#include <string>

#include "base/check.h"
#include "wire/s3.h"
#include "wire/xml.h"

namespace {

using namespace firn::wire;

void check_list(std::string_view text) {
  const firn::Result<S3List> list = decode_s3_list(text);
  if (!list) return;
  for (size_t i = 1; i < list->entries.size(); ++i) {
    CHECK(list->entries[i - 1].key < list->entries[i].key, "S2");
  }
  CHECK(!list->truncated || !list->entries.empty(), "a list that never ends");
}

void check_xml(std::string_view text) {
  const firn::Result<XmlElement> document = parse_xml(text);
  if (!document) return;
  CHECK(!document->name.empty() && document->text.size() <= kXmlTextMax + 4);
  // What was read can be written and read again.
  const std::string again = "<x>" + xml_escaped(document->text) + "</x>";
  const firn::Result<XmlElement> read = parse_xml(again);
  CHECK(read && read->text == document->text);
}

void check_headers(std::string_view text) {
  const firn::Result<S3ContentRange> range = parse_content_range(text);
  CHECK(!range || (range->first <= range->last && range->last < range->total));
  const firn::Result<int64_t> http = parse_http_date(text);
  CHECK(!http || *http >= 0);
  const firn::Result<int64_t> iso = parse_iso_date(text);
  CHECK(!iso || *iso >= 0);
  (void)parse_restore_ongoing(text);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(data, data + size);
  check_xml(text);
  check_list(text);
  check_headers(text);
  const S3Error error = decode_s3_error(text);
  for (const char c : error.code + error.message + error.region) CHECK(c >= ' ' && c < 0x7f);
  (void)decode_s3_upload(text);
  (void)decode_s3_completion(text);
  (void)decode_s3_versioning(text);
  (void)decode_s3_object_lock(text);
  (void)decode_s3_lifecycle(text);
  return 0;
}
