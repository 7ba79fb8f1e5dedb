// SPDX-License-Identifier: Apache-2.0
// What S3 servers say and what is said to them, as text: XML documents, dates, a few headers.
//
// Contract:
//  S1  Decoders take any bytes and answer with a value or a sentence (Errc::invalid).
//  S2  A list is believed only if its keys ascend and sizes are numbers; whether they begin with
//      the prefix that was asked for is the caller's to see.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace firn::wire {

struct S3Error {
  std::string code;     // "NoSuchKey"
  std::string message;  // For people; printable.
  std::string region;   // Where the bucket is, when that was the trouble.
};
// Never fails: what is no error document is an error without a code.
S3Error decode_s3_error(std::string_view body);

struct S3ListEntry {
  std::string key;
  uint64_t bytes = 0;
  int64_t modified_ns = 0;
  std::string storage_class;
};
struct S3List {
  std::vector<S3ListEntry> entries;
  bool truncated = false;
};
// ListObjectsV2 with encoding-type=url.
Result<S3List> decode_s3_list(std::string_view body);

// InitiateMultipartUpload: the id of the upload.
Result<std::string> decode_s3_upload(std::string_view body);
// CompleteMultipartUpload says "200 OK" before it knows: the error, when there is one.
std::optional<S3Error> decode_s3_completion(std::string_view body);
std::string encode_s3_completion(const std::vector<std::string>& etags);
std::string encode_s3_restore(uint32_t days);

// --- what a bucket is set to
// "Enabled", "Suspended", or nothing.
Result<std::string> decode_s3_versioning(std::string_view body);
struct S3ObjectLock {
  bool enabled = false;
  std::string mode;    // "GOVERNANCE", "COMPLIANCE", or nothing.
  std::string period;  // "30 days", "1 years", or nothing.
};
Result<S3ObjectLock> decode_s3_object_lock(std::string_view body);
struct S3LifecycleRule {
  std::string id;
  bool enabled = false;
  std::string prefix;
  bool only_tagged = false;  // It speaks of objects with tags, which ours never have.
  bool expires = false;      // It deletes current objects ...
  std::string transition;    // ... or moves them to this class.
};
Result<std::vector<S3LifecycleRule>> decode_s3_lifecycle(std::string_view body);

// --- headers
// "Fri, 24 May 2013 00:00:00 GMT", and "2013-05-24T00:00:00.000Z"; nanoseconds since 1970.
Result<int64_t> parse_http_date(std::string_view text);
Result<int64_t> parse_iso_date(std::string_view text);
struct S3ContentRange {
  uint64_t first = 0, last = 0, total = 0;
};
Result<S3ContentRange> parse_content_range(std::string_view text);
// x-amz-restore: whether a restore is under way (true) or done (false).
std::optional<bool> parse_restore_ongoing(std::string_view text);

}  // namespace firn::wire
