// SPDX-License-Identifier: Apache-2.0
// S3Store: a bucket, or a prefix in one, of a server that speaks S3.
//
// Contract, beside ObjectStore's:
//  T1  What changes something carries a digest of its body that the server checks: in the
//      signature, or as Content-MD5 (over TLS). A torn upload is refused, not stored.
//  T2  A put with `once` is one PUT with If-None-Match: *, never a multipart upload, on a
//      connection of its own (HttpClient C4); so nobody repeats it but us, and we say when we do
//      not know.
//  T3  A failed multipart upload is aborted. What a dead client began stays with the server: a
//      lifecycle rule of the bucket ends it (AbortIncompleteMultipartUpload).
//  T4  No sentence, log line or name has a secret in it.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "io/http_client.h"
#include "io/object_store.h"
#include "io/s3_credentials.h"
#include "wire/s3.h"
#include "wire/s3_url.h"

namespace firn {

class S3Store final : public ObjectStore {
 public:
  static constexpr uint64_t kPartBytes = uint64_t{64} * 1024 * 1024;
  static constexpr uint64_t kPutBytesMax = uint64_t{5} * 1024 * 1024 * 1024;

  // Reads credentials, sends nothing.
  static Result<std::unique_ptr<S3Store>> open(Io& io, const wire::StoreUrl& url);

  const std::string& name() const override { return name_; }
  Result<void> put(Io& io, const std::string& key, Iovec body, const PutHow& how) override;
  Result<ObjectInfo> head(Io& io, const std::string& key) override;
  Result<size_t> get(Io& io, const std::string& key, uint64_t at, Bytes into) override;
  Result<std::vector<ObjectInfo>> list(Io& io, const std::string& prefix, const std::string& after,
                                       size_t count_max) override;
  Result<void> remove(Io& io, const std::string& key) override;
  Result<void> thaw(Io& io, const std::string& key, uint32_t days) override;
  Result<int64_t> wall_clock_ns(Io& io) override;
  Result<StoreFacts> facts(Io& io) override;

 private:
  struct Request;
  S3Store(const wire::StoreUrl& url, S3Identity identity, const std::string& endpoint);

  // --- one request, tried until it is answered for good (s3_store.cc)
  Result<void> ask(Io& io, Request& request);
  void ask_once(Io& io, Request& request);
  void sign(Io& io, Request& request);
  void digest(Io& io, Request& request);
  bool new_credentials(Io& io);
  Error refusal(const Request& request) const;
  Result<Request> probe(Io& io, const char* question);
  std::string path_of(const std::string& key) const;

  // --- multipart (s3_multipart.cc)
  Result<void> put_parts(Io& io, const std::string& key, Iovec body, const PutHow& how);
  Result<std::string> begin_upload(Io& io, const std::string& key, const PutHow& how);
  Result<std::vector<std::string>> send_parts(Io& io, const std::string& key, const std::string& id,
                                              Iovec body, uint64_t part);
  Result<void> complete_upload(Io& io, const std::string& key, const std::string& id,
                               const std::vector<std::string>& etags);
  void abort_upload(Io& io, const std::string& key, const std::string& id);

  std::string name_;
  std::string bucket_;
  std::string prefix_;  // Empty, or with a '/' at its end.
  std::string region_;
  std::string profile_;
  S3Identity identity_;
  wire::Endpoint endpoint_;  // With the bucket in its name, where the style is "host".
  bool path_style_;
  uint64_t part_bytes_;
  Duration patience_;
  HttpClient client_;
};

// One request and what is known of its outcome; for s3_store.cc and s3_multipart.cc.
struct S3Store::Request {
  const char* verb = "";  // "put of", as sentences say it.
  std::string key;        // Empty: of the bucket.
  wire::TextPairs query;
  wire::TextPairs headers;
  bool of_bucket = false;
  HttpCall call;
  // Set once: of the body.
  std::string payload_hash;
  std::string md5;
  // Some try before the last may have had its effect.
  bool unknown = false;
  wire::S3Error error;
};

}  // namespace firn
