// SPDX-License-Identifier: Apache-2.0
// Large objects in parts: each is a PUT of its own, and the object appears when all are there.
#include <algorithm>

#include "io/s3_store.h"

namespace firn {
namespace {

constexpr size_t kPartsInFlight = 4;
constexpr uint64_t kPartsMax = 10'000;

// Those bytes of a scatter list.
std::vector<::iovec> cut_out(Iovec body, uint64_t at, uint64_t length) {
  std::vector<::iovec> slices;
  for (const ::iovec& slice : body) {
    if (at >= slice.iov_len) {
      at -= slice.iov_len;
      continue;
    }
    const size_t step = std::min<uint64_t>(length, slice.iov_len - at);
    slices.push_back({static_cast<std::byte*>(slice.iov_base) + at, step});
    at = 0;
    length -= step;
    if (length == 0) break;
  }
  return slices;
}

}  // namespace

Result<std::string> S3Store::begin_upload(Io& io, const std::string& key, const PutHow& how) {
  Request request{.verb = "begin of upload of", .key = key, .query = {{"uploads", ""}}};
  request.call.method = "POST";
  if (!how.storage_class.empty()) {
    request.headers.emplace_back("x-amz-storage-class", how.storage_class);
  }
  TRY(ask(io, request));
  Result<std::string> id = wire::decode_s3_upload(request.call.text);
  if (!id) return fail(Errc::io, "{}: upload of {}: {}", name_, key, text_of(id.error()));
  return id;
}

Result<std::vector<std::string>> S3Store::send_parts(Io& io, const std::string& key,
                                                     const std::string& id, Iovec body,
                                                     uint64_t part) {
  const uint64_t total = total_of(body);
  std::vector<std::string> etags((total + part - 1) / part);
  size_t next = 0;
  std::optional<Error> failed;
  Group group(io);
  const auto worker = [&] {
    while (next < etags.size() && !failed) {
      const size_t number = next++;
      const uint64_t at = number * part;
      const std::vector<::iovec> slices = cut_out(body, at, std::min(part, total - at));
      Request request{.verb = "part of upload of",
                      .key = key,
                      .query = {{"partNumber", fmt::format("{}", number + 1)}, {"uploadId", id}}};
      request.call.method = "PUT";
      request.call.body = slices;
      const Result<void> done = ask(io, request);
      etags[number] = request.call.header("etag");
      if (!done && !failed) failed = done.error();
      if (done && etags[number].empty() && !failed) {
        failed = fail(Errc::io, "{}: upload of {}: a part without an ETag", name_, key);
      }
    }
  };
  for (size_t i = 0; i < std::min(kPartsInFlight, etags.size()); ++i) io.spawn(group, worker);
  group.wait();
  if (failed) return *failed;
  return etags;
}

Result<void> S3Store::complete_upload(Io& io, const std::string& key, const std::string& id,
                                      const std::vector<std::string>& etags) {
  const std::string text = wire::encode_s3_completion(etags);
  const ::iovec slice = slice_of(std::as_bytes(std::span(text)));
  Request request{.verb = "end of upload of", .key = key, .query = {{"uploadId", id}}};
  request.call.method = "POST";
  request.call.body = Iovec(&slice, 1);
  TRY(ask(io, request));
  if (const std::optional<wire::S3Error> error = wire::decode_s3_completion(request.call.text)) {
    return fail(Errc::io, "{}: end of upload of {}: {} {}", name_, key, error->code,
                error->message);
  }
  return ok;
}

void S3Store::abort_upload(Io& io, const std::string& key, const std::string& id) {
  Request request{.verb = "abort of upload of", .key = key, .query = {{"uploadId", id}}};
  request.call.method = "DELETE";
  // Best effort (T3): what counts is why the upload failed.
  (void)ask(io, request);
}

Result<void> S3Store::put_parts(Io& io, const std::string& key, Iovec body, const PutHow& how) {
  const uint64_t part = std::max(part_bytes_, (total_of(body) + kPartsMax - 1) / kPartsMax);
  const std::string id = TRY(begin_upload(io, key, how));
  Result<std::vector<std::string>> etags = send_parts(io, key, id, body, part);
  if (!etags) {
    abort_upload(io, key, id);
    return etags.error();
  }
  const Result<void> done = complete_upload(io, key, id, *etags);
  // An error that says nothing of the outcome leaves the upload: to abort what is being completed
  // could end it halfway.
  if (!done && done.error().code != Errc::timed_out && done.error().code != Errc::io) {
    abort_upload(io, key, id);
  }
  return done;
}

}  // namespace firn
