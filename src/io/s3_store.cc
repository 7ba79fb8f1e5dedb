// SPDX-License-Identifier: Apache-2.0
#include "io/s3_store.h"

#include <algorithm>
#include <charconv>

#include "base/log.h"
#include "wire/text.h"

namespace firn {
namespace {

constexpr uint64_t kDigestHere = 64 * 1024;  // What is longer is digested on a helper thread.
constexpr Duration kFirstPause = std::chrono::milliseconds(100);
constexpr Duration kLongestPause = std::chrono::seconds(5);
constexpr Duration kShortest = std::chrono::seconds(60);
constexpr uint64_t kSlowestBytes = 64 * 1024;  // A second, before a request is given up.
constexpr size_t kListBytesMax = size_t{4} * 1024 * 1024;
constexpr size_t kListPage = 1000;
constexpr uint32_t kPatience = 300;

enum class Verdict : uint8_t {
  good,
  again,    // Nothing happened; try again.
  unknown,  // It may have happened; try again.
  final,
};

bool is_busy_code(const std::string& code) {
  for (const char* busy : {"SlowDown", "RequestTimeout", "BadDigest", "XAmzContentSHA256Mismatch",
                           "IncompleteBody", "ConditionalRequestConflict", "OperationAborted"}) {
    if (code == busy) return true;
  }
  return false;
}

Verdict verdict_of(const HttpCall& call, const wire::S3Error& error) {
  switch (call.end) {
    case HttpCall::End::not_sent:
      return Verdict::again;
    case HttpCall::End::lost:
      return Verdict::unknown;
    case HttpCall::End::refused:
    case HttpCall::End::too_long:
      return Verdict::final;
    case HttpCall::End::answered:
      break;
  }
  if (call.status / 100 == 2) return Verdict::good;
  if (call.status == 503 || call.status == 429 || is_busy_code(error.code)) return Verdict::again;
  const bool troubled = call.status >= 500 && call.status != 501 && call.status != 507;
  return troubled ? Verdict::unknown : Verdict::final;
}

bool is_deferred(const std::string& storage_class) {
  return storage_class == "GLACIER" || storage_class == "DEEP_ARCHIVE";
}

ObjectInfo::State state_of(const std::string& storage_class, const std::string& restore) {
  if (!is_deferred(storage_class)) return ObjectInfo::State::ready;
  const std::optional<bool> ongoing = wire::parse_restore_ongoing(restore);
  if (!ongoing) return ObjectInfo::State::frozen;
  return *ongoing ? ObjectInfo::State::thawing : ObjectInfo::State::ready;
}

std::string class_or_standard(const std::string& text) {
  return is_storage_class(text) ? text : std::string(kStandardClass);
}

// A status that says nothing to people, and what they should know.
struct Named {
  const char* code;
  Errc errc;
  const char* sentence;
};
constexpr Named kNamed[] = {
    {"InvalidAccessKeyId", Errc::invalid, "the store does not know this access key"},
    {"SignatureDoesNotMatch", Errc::invalid, "the secret key is wrong for this access key"},
    {"AccessDenied", Errc::invalid, "this key has no permission for it"},
    {"AllAccessDisabled", Errc::invalid, "all access to the bucket is disabled"},
    {"ExpiredToken", Errc::invalid, "the session token has expired: get a new one"},
    {"TokenRefreshRequired", Errc::invalid, "the session token has expired: get a new one"},
    {"InvalidToken", Errc::invalid, "the store does not take this session token"},
    {"RequestExpired", Errc::invalid, "the clocks of this host and of the store differ"},
    {"RequestTimeTooSkewed", Errc::invalid, "the clocks of this host and of the store differ"},
    {"NoSuchBucket", Errc::invalid, "there is no such bucket"},
    {"InvalidBucketName", Errc::invalid, "the store does not take this name of a bucket"},
    {"PermanentRedirect", Errc::invalid, "the bucket is elsewhere"},
    {"TemporaryRedirect", Errc::invalid, "the bucket is elsewhere"},
    {"AuthorizationHeaderMalformed", Errc::invalid, "the bucket is in another region"},
    {"InvalidObjectState", Errc::busy, "the object is frozen: thaw it first"},
    {"NoSuchKey", Errc::not_found, "there is no such object"},
    {"NoSuchUpload", Errc::io, "the store has forgotten the upload"},
    {"PreconditionFailed", Errc::exists, "the object is there already"},
    {"NotImplemented", Errc::unsupported, "the store cannot do it"},
    {"MethodNotAllowed", Errc::unsupported, "the store cannot do it"},
    {"QuotaExceeded", Errc::no_space, "the quota is used up"},
};
constexpr Named kByStatus[] = {
    {"301", Errc::invalid, "the bucket is elsewhere"},
    {"302", Errc::invalid, "the store redirects, and redirects are not followed"},
    {"307", Errc::invalid, "the store redirects, and redirects are not followed"},
    {"308", Errc::invalid, "the store redirects, and redirects are not followed"},
    {"401", Errc::invalid, "the store does not take these credentials"},
    {"403", Errc::invalid, "this key has no permission for it, or is wrong"},
    {"404", Errc::not_found, "there is no such object"},
    {"405", Errc::unsupported, "the store cannot do it"},
    {"412", Errc::exists, "the object is there already"},
    {"501", Errc::unsupported, "the store cannot do it"},
    {"507", Errc::no_space, "the store is full"},
};

Named named(const HttpCall& call, const wire::S3Error& error) {
  for (const Named& known : kNamed) {
    if (error.code == known.code) return known;
  }
  for (const Named& known : kByStatus) {
    if (fmt::format("{}", call.status) == known.code) return known;
  }
  return {"", Errc::io, "the store refuses"};
}

std::string style_of(const wire::StoreUrl& url, const std::string& endpoint) {
  if (!url.style.empty()) return url.style;
  // A certificate of "*.s3.REGION.amazonaws.com" covers no bucket with dots.
  const bool dots = url.bucket.find('.') != std::string::npos;
  return endpoint.empty() && !dots ? "host" : "path";
}

}  // namespace

Result<std::unique_ptr<S3Store>> S3Store::open(Io& io, const wire::StoreUrl& url) {
  S3Identity identity = TRY(find_s3_identity(io, url.profile));
  if (!url.endpoint.empty()) identity.endpoint = url.endpoint;
  if (!url.region.empty()) identity.region = url.region;
  if (!url.ca.empty()) identity.ca = url.ca;
  std::string region = identity.region.empty() ? "us-east-1" : identity.region;
  for (const char c : region) {
    if ((c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' &&
        (c < 'A' || c > 'Z')) {
      return fail(Errc::invalid, "'{}' is no region", wire::printable(region, 40));
    }
  }
  identity.region = region;
  const std::string endpoint = identity.endpoint.empty()
                                   ? fmt::format("https://s3.{}.amazonaws.com", region)
                                   : identity.endpoint;
  TRY(wire::parse_endpoint(endpoint));
  return std::unique_ptr<S3Store>(new S3Store(url, std::move(identity), endpoint));
}

S3Store::S3Store(const wire::StoreUrl& url, S3Identity identity, const std::string& endpoint)
    : name_(wire::name_of(url)),
      bucket_(url.bucket),
      prefix_(url.prefix.empty() ? "" : url.prefix + "/"),
      region_(identity.region),
      profile_(url.profile),
      identity_(std::move(identity)),
      endpoint_(wire::parse_endpoint(endpoint).take()),
      path_style_(style_of(url, identity_.endpoint) == "path"),
      part_bytes_(url.part_bytes == 0 ? kPartBytes : url.part_bytes),
      patience_(std::chrono::seconds(url.patience_s == 0 ? kPatience : url.patience_s)),
      client_({.proxy = url.proxy, .ca = identity_.ca}) {
  if (!path_style_) endpoint_.authority = bucket_ + "." + endpoint_.authority;
}

// Of an object, or of the bucket itself when `key` is empty.
std::string S3Store::path_of(const std::string& key) const {
  std::string path = path_style_ ? "/" + bucket_ : "";
  if (!key.empty()) path += "/" + wire::uri_encoded(prefix_ + key, true);
  return path.empty() ? "/" : path;
}

// T1. Once for all tries.
void S3Store::digest(Io& io, Request& request) {
  if (!request.payload_hash.empty()) return;
  const Iovec body = request.call.body;
  const auto work = [this, body, &request] {
    if (endpoint_.tls) {
      request.payload_hash = wire::kUnsignedPayload;
      if (!body.empty()) request.md5 = wire::md5_base64(body);
    } else {
      request.payload_hash = wire::sha256_hex(body);
    }
  };
  if (total_of(body) > kDigestHere) {
    io.offload(work);
  } else {
    work();
  }
}

void S3Store::sign(Io& io, Request& request) {
  const std::string time = wire::aws_time(io.wall_clock_ns());
  wire::SignedRequest what{.method = request.call.method,
                           .path = path_of(request.of_bucket ? "" : request.key),
                           .query = request.query,
                           .headers = request.headers,
                           .payload_hash = request.payload_hash};
  what.headers.emplace_back("host", endpoint_.authority);
  what.headers.emplace_back("x-amz-date", time);
  what.headers.emplace_back("x-amz-content-sha256", request.payload_hash);
  if (!request.md5.empty()) what.headers.emplace_back("content-md5", request.md5);
  if (!identity_.key.session_token.empty()) {
    what.headers.emplace_back("x-amz-security-token", identity_.key.session_token);
  }
  request.call.headers = what.headers;
  request.call.headers.emplace_back("authorization",
                                    wire::authorization_of(identity_.key, time, region_, what));
  const std::string query = wire::canonical_query(request.query);
  request.call.url = fmt::format("{}://{}{}{}{}", endpoint_.tls ? "https" : "http",
                                 endpoint_.authority, what.path, query.empty() ? "" : "?", query);
}

void S3Store::ask_once(Io& io, Request& request) {
  HttpCall& call = request.call;
  call.end = HttpCall::End::lost;
  call.status = 0;
  call.answer.clear();
  call.text.clear();
  call.got = 0;
  call.why.clear();
  const uint64_t bytes = total_of(call.body) + call.into.size();
  call.deadline = kShortest + std::chrono::seconds(bytes / kSlowestBytes);
  sign(io, request);
  client_.ask(io, call);
  request.error = {};
  if (call.end == HttpCall::End::answered && call.status / 100 != 2) {
    request.error = wire::decode_s3_error(call.text);
  }
}

// Whether the environment or the files have others than we use: a session was renewed.
bool S3Store::new_credentials(Io& io) {
  Result<S3Identity> found = find_s3_identity(io, profile_);
  if (!found) return false;
  const wire::AwsKey& key = found->key;
  const bool same = key.access_key == identity_.key.access_key &&
                    key.session_token == identity_.key.session_token &&
                    key.secret_key == identity_.key.secret_key;
  if (!same) identity_.key = key;
  return !same;
}

Result<void> S3Store::ask(Io& io, Request& request) {
  digest(io, request);
  const Time begin = io.now();
  Duration wait = kFirstPause;
  bool renewed = false;
  for (;;) {
    ask_once(io, request);
    const Verdict verdict = verdict_of(request.call, request.error);
    if (verdict == Verdict::good) return ok;
    if (verdict == Verdict::final) {
      const std::string& code = request.error.code;
      if (!renewed && (code == "ExpiredToken" || code == "TokenRefreshRequired") &&
          new_credentials(io)) {
        renewed = true;
        continue;
      }
      return refusal(request);
    }
    request.unknown |= verdict == Verdict::unknown;
    const auto half = static_cast<uint64_t>((wait / 2).count());
    const Duration pause = wait / 2 + Duration(static_cast<int64_t>(io.random() % (half + 1)));
    if (io.now() + pause - begin > patience_) return refusal(request);
    if (counters_.retries++ == 0) {
      log(LogLevel::warning, "{}: {} {}: trying again ({})", name_, request.verb, request.key,
          request.call.status != 0 ? fmt::format("HTTP {}", request.call.status)
                                   : request.call.why);
    }
    io.sleep(pause);
    wait = std::min(wait * 2, kLongestPause);
  }
}

// The one place where answers that are no use become sentences.
Error S3Store::refusal(const Request& request) const {
  const HttpCall& call = request.call;
  const std::string what =
      fmt::format("{}: {} {}", name_, request.verb,
                  request.of_bucket && request.key.empty() ? "the bucket" : request.key);
  if (call.end == HttpCall::End::too_long) {
    return fail(Errc::io, "{}: the store sends more than was asked for", what);
  }
  if (call.end == HttpCall::End::refused) {
    return fail(Errc::invalid, "{}: {} is not to be trusted: {}", what, endpoint_.authority,
                call.why);
  }
  const Verdict verdict = verdict_of(call, request.error);
  if (verdict != Verdict::final) {
    const std::string last = call.end == HttpCall::End::answered
                                 ? fmt::format("HTTP {} {}", call.status, request.error.code)
                                 : fmt::format("{}: {}", endpoint_.authority, call.why);
    return fail(Errc::timed_out, "{}: no good answer within {} s; the last was: {}", what,
                std::chrono::duration_cast<std::chrono::seconds>(patience_).count(), last);
  }
  Named known = named(call, request.error);
  // There is always something to list, unless the bucket or the way to it is wrong.
  if (request.of_bucket && known.errc == Errc::not_found) {
    known = {"", Errc::invalid, "there is no such bucket, or no store"};
  }
  std::string detail =
      request.error.code.empty() ? fmt::format("HTTP {}", call.status) : request.error.code;
  const std::string& region =
      request.error.region.empty() ? call.header("x-amz-bucket-region") : request.error.region;
  if (call.status == 301 || request.error.code == "AuthorizationHeaderMalformed") {
    if (!region.empty()) detail += ", region " + wire::printable(region, 40);
  } else if (known.errc == Errc::io && !request.error.message.empty()) {
    detail += ": " + request.error.message;
  }
  return fail(known.errc, "{}: {} ({})", what, known.sentence, detail);
}

Result<void> S3Store::put(Io& io, const std::string& key, Iovec body, const PutHow& how) {
  CHECK(is_object_key(key), "'{}' is no key of an object", key);
  CHECK(how.storage_class.empty() || is_storage_class(how.storage_class), "{}", how.storage_class);
  ++counters_.puts;
  const uint64_t bytes = total_of(body);
  if (how.once && bytes > kPutBytesMax) {
    return fail(Errc::unsupported, "{}: an object of {} bytes cannot be put once", name_, bytes);
  }
  if (!how.once && bytes > part_bytes_) {
    TRY(put_parts(io, key, body, how));
    counters_.bytes_put += bytes;
    return ok;
  }
  Request request{.verb = "put of", .key = key};
  request.call.method = "PUT";
  request.call.body = body;
  if (how.once) {
    request.headers.emplace_back("if-none-match", "*");
    request.call.fresh = true;
  }
  if (!how.storage_class.empty()) {
    request.headers.emplace_back("x-amz-storage-class", how.storage_class);
  }
  const Result<void> done = ask(io, request);
  if (!done && done.error().code == Errc::exists && request.unknown) {
    return fail(Errc::io, "{}: put of {}: it is there, after a try without an answer: maybe ours",
                name_, key);
  }
  if (!done) return done.error();
  counters_.bytes_put += bytes;
  return ok;
}

Result<ObjectInfo> S3Store::head(Io& io, const std::string& key) {
  CHECK(is_object_key(key), "'{}' is no key of an object", key);
  ++counters_.heads;
  Request request{.verb = "head of", .key = key};
  request.call.method = "HEAD";
  const Result<void> done = ask(io, request);
  if (!done) {
    if (request.call.status == 404 || request.call.end != HttpCall::End::answered) {
      return done.error();
    }
    // An answer to HEAD has no body, and so no reason in it: ask in a way that has.
    std::array<std::byte, 1> room{};
    Request other{.verb = "head of", .key = key};
    other.call.method = "GET";
    other.call.into = room;
    other.call.body_is_text = false;
    other.headers.emplace_back("range", "bytes=0-0");
    const Result<void> reason = ask(io, other);
    return reason ? done.error() : reason.error();
  }
  const HttpCall& call = request.call;
  ObjectInfo info{.key = key};
  const std::string& length = call.header("content-length");
  const auto read = std::from_chars(length.data(), length.data() + length.size(), info.bytes);
  if (length.empty() || read.ec != std::errc() || read.ptr != length.data() + length.size()) {
    return fail(Errc::io, "{}: head of {}: the store says no length", name_, key);
  }
  Result<int64_t> modified = wire::parse_http_date(call.header("last-modified"));
  if (modified) info.modified_ns = *modified;
  info.storage_class = class_or_standard(call.header("x-amz-storage-class"));
  info.state = state_of(info.storage_class, call.header("x-amz-restore"));
  return info;
}

Result<size_t> S3Store::get(Io& io, const std::string& key, uint64_t at, Bytes into) {
  CHECK(is_object_key(key), "'{}' is no key of an object", key);
  CHECK(!into.empty());
  ++counters_.gets;
  Request request{.verb = "get of", .key = key};
  request.call.method = "GET";
  request.call.into = into;
  request.call.body_is_text = false;
  request.headers.emplace_back("range", fmt::format("bytes={}-{}", at, at + into.size() - 1));
  const Result<void> done = ask(io, request);
  const HttpCall& call = request.call;
  if (call.end == HttpCall::End::answered && call.status == 416) return size_t{0};
  if (!done) return done.error();
  counters_.bytes_got += call.got;
  // All of it instead of a range: good when that is what it comes to.
  if (call.status == 200 && at == 0) return call.got;
  Result<wire::S3ContentRange> range = wire::parse_content_range(call.header("content-range"));
  const bool fits = call.status == 206 && range && range->first == at &&
                    range->last - at + 1 == call.got &&
                    (call.got == into.size() || range->last + 1 == range->total);
  if (!fits) {
    return fail(Errc::io, "{}: get of {}: asked for {} bytes at {}, the store gave '{}'", name_,
                key, into.size(), at, wire::printable(call.header("content-range"), 60));
  }
  return call.got;
}

Result<std::vector<ObjectInfo>> S3Store::list(Io& io, const std::string& prefix,
                                              const std::string& after, size_t count_max) {
  CHECK(count_max > 0);
  ++counters_.lists;
  std::vector<ObjectInfo> found;
  const std::string whole_prefix = prefix_ + prefix;
  std::string from = after.empty() ? "" : prefix_ + after;
  for (;;) {
    Request request{.verb = "list of", .key = prefix, .of_bucket = true};
    request.call.method = "GET";
    request.call.text_bytes_max = kListBytesMax;
    const size_t wanted = std::min(kListPage, count_max - found.size());
    request.query = {{"list-type", "2"},
                     {"encoding-type", "url"},
                     {"max-keys", fmt::format("{}", wanted)},
                     {"prefix", whole_prefix}};
    if (!from.empty()) request.query.emplace_back("start-after", from);
    TRY(ask(io, request));
    Result<wire::S3List> list = wire::decode_s3_list(request.call.text);
    if (!list) return fail(Errc::io, "{}: list of {}: {}", name_, prefix, text_of(list.error()));
    for (wire::S3ListEntry& entry : list->entries) {
      if (!entry.key.starts_with(whole_prefix) || entry.key <= from) {
        return fail(Errc::io, "{}: list of {}: the store lists '{}', which was not asked for",
                    name_, prefix, wire::printable(entry.key, 80));
      }
      from = entry.key;
      const std::string key = entry.key.substr(prefix_.size());
      if (!is_object_key(key)) continue;  // Somebody else's.
      const std::string storage_class = class_or_standard(entry.storage_class);
      found.push_back({.key = key,
                       .bytes = entry.bytes,
                       .modified_ns = entry.modified_ns,
                       .storage_class = storage_class,
                       .state = state_of(storage_class, "")});
      if (found.size() == count_max) return found;
    }
    if (!list->truncated) return found;
  }
}

Result<void> S3Store::remove(Io& io, const std::string& key) {
  CHECK(is_object_key(key), "'{}' is no key of an object", key);
  ++counters_.removes;
  Request request{.verb = "remove of", .key = key};
  request.call.method = "DELETE";
  const Result<void> done = ask(io, request);
  if (!done && done.error().code == Errc::not_found) return ok;
  return done;
}

Result<void> S3Store::thaw(Io& io, const std::string& key, uint32_t days) {
  CHECK(is_object_key(key), "'{}' is no key of an object", key);
  ++counters_.thaws;
  const std::string text = wire::encode_s3_restore(days);
  const ::iovec slice = slice_of(std::as_bytes(std::span(text)));
  Request request{.verb = "thaw of", .key = key, .query = {{"restore", ""}}};
  request.call.method = "POST";
  request.call.body = Iovec(&slice, 1);
  const Result<void> done = ask(io, request);
  if (done) return ok;
  // Under way already; or of a class that needs none.
  const std::string& code = request.error.code;
  if (code == "RestoreAlreadyInProgress" || code == "InvalidObjectState") return ok;
  return done.error();
}

// A question to the bucket, with an answer in text.
Result<S3Store::Request> S3Store::probe(Io& io, const char* question) {
  Request request{.verb = question, .key = "", .query = {{question, ""}}, .of_bucket = true};
  request.call.method = "GET";
  TRY(ask(io, request));
  return request;
}

Result<int64_t> S3Store::wall_clock_ns(Io& io) {
  Request request{.verb = "list of", .of_bucket = true};
  request.call.method = "GET";
  request.query = {{"list-type", "2"}, {"max-keys", "1"}, {"prefix", prefix_}};
  const Result<void> done = ask(io, request);
  // Who is refused for his clock is told the time with the refusal.
  const std::string& date = request.call.header("date");
  if (date.empty() && !done) return done.error();
  Result<int64_t> when = wire::parse_http_date(date);
  if (!when) return fail(Errc::io, "{}: the store does not say what time it is", name_);
  return *when;
}

Result<StoreFacts> S3Store::facts(Io& io) {
  StoreFacts facts{.told = true, .encrypted_path = endpoint_.tls};
  const auto mute = [&](const char* what, Error error) {
    facts.mute.push_back(fmt::format("{}: {}", what, text_of(error)));
  };
  Result<Request> versioning = probe(io, "versioning");
  if (versioning) {
    Result<std::string> said = wire::decode_s3_versioning(versioning->call.text);
    if (said) facts.versioning = said.take();
  } else {
    mute("versioning", versioning.error());
  }
  Request lock{.verb = "object-lock", .query = {{"object-lock", ""}}, .of_bucket = true};
  lock.call.method = "GET";
  if (const Result<void> asked = ask(io, lock); asked) {
    if (Result<wire::S3ObjectLock> said = wire::decode_s3_object_lock(lock.call.text); said) {
      facts.lock_enabled = said->enabled;
      facts.lock_mode = said->mode;
      facts.lock_period = said->period;
    }
  } else if (!lock.error.code.starts_with("ObjectLockConfigurationNotFound") &&
             lock.call.status != 404) {
    mute("object lock", asked.error());
  }
  Request lifecycle{.verb = "lifecycle", .query = {{"lifecycle", ""}}, .of_bucket = true};
  lifecycle.call.method = "GET";
  if (const Result<void> asked = ask(io, lifecycle); asked) {
    const std::vector<wire::S3LifecycleRule> rules =
        TRY(wire::decode_s3_lifecycle(lifecycle.call.text));
    for (const wire::S3LifecycleRule& rule : rules) {
      const bool touches = rule.prefix.starts_with(prefix_) || prefix_.starts_with(rule.prefix);
      if (!rule.enabled || rule.only_tagged || !touches) continue;
      if (!rule.expires && rule.transition.empty()) continue;
      facts.rules.push_back({rule.id, rule.expires, rule.transition});
    }
  } else if (lifecycle.error.code != "NoSuchLifecycleConfiguration") {
    mute("lifecycle", asked.error());
  }
  return facts;
}

}  // namespace firn
