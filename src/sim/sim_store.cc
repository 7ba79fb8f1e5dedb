// SPDX-License-Identifier: Apache-2.0
#include "sim/sim_store.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace firn::sim {
namespace {

constexpr Duration kFirstPause = std::chrono::milliseconds(100);
constexpr Duration kLongestPause = std::chrono::seconds(5);
constexpr size_t kListPage = 1000;
constexpr int64_t kDayNs = int64_t{24} * 3600 * 1'000'000'000;

std::shared_ptr<const std::vector<std::byte>> copy_of(Iovec body) {
  auto copy = std::make_shared<std::vector<std::byte>>();
  copy->reserve(total_of(body));
  for (const ::iovec& slice : body) {
    const std::byte* bytes = static_cast<const std::byte*>(slice.iov_base);
    copy->insert(copy->end(), bytes, bytes + slice.iov_len);
  }
  return copy;
}

}  // namespace

ObjectInfo::State SimBucket::Object::state(int64_t now_ns, bool deferred) const {
  if (!deferred) return ObjectInfo::State::ready;
  if (thawed_ns == INT64_MAX || now_ns >= frozen_ns) return ObjectInfo::State::frozen;
  return now_ns >= thawed_ns ? ObjectInfo::State::ready : ObjectInfo::State::thawing;
}

void SimBucket::flip_bit(const std::string& key, uint64_t bit) {
  Object& object = objects.at(key);
  auto body = std::make_shared<std::vector<std::byte>>(*object.body);
  (*body)[bit / 8] ^= std::byte{1} << (bit % 8);
  object.body = std::move(body);
}

void SimBucket::cut(const std::string& key, uint64_t bytes_left) {
  Object& object = objects.at(key);
  auto body = std::make_shared<std::vector<std::byte>>(*object.body);
  body->resize(std::min<size_t>(bytes_left, body->size()));
  object.body = std::move(body);
}

uint64_t SimBucket::bytes() const {
  uint64_t sum = 0;
  for (const auto& [key, object] : objects) sum += object.body->size();
  return sum;
}

SimStore::SimStore(SimBucket& bucket, Settings settings)
    : bucket_(bucket), settings_(std::move(settings)), prng_(settings_.seed) {}

void SimStore::fail_nth(uint64_t nth, std::optional<RequestKind> kind, Errc code) {
  fail_nth_ = nth;
  fail_kind_ = kind;
  fail_code_ = code;
  failed_ = false;
}

void SimStore::kill_at(uint64_t nth, bool after_effect) {
  kill_at_ = requests_ + nth;
  kill_after_ = after_effect;
}

Error SimStore::dead(const Call& call) const {
  return fail(Errc::cancelled, "{} of {} in {}: this client is dead", name_of(call.kind), call.key,
              settings_.name);
}

void SimStore::pause(Io& io, RequestKind kind) {
  const SimStoreFaults& faults = settings_.faults;
  Duration wait = faults.latency_min;
  if (faults.latency_max > faults.latency_min) {
    const auto span = static_cast<uint64_t>((faults.latency_max - faults.latency_min).count());
    wait += Duration(static_cast<int64_t>(prng_.below(span)));
  }
  if (kind == RequestKind::put) wait += faults.put_latency;
  if (wait > Duration::zero()) io.sleep(wait / 2);
}

void SimStore::land() {
  for (const auto& effect : std::exchange(late_, {})) (void)effect();
}

SimStore::Fate SimStore::draw(Io& io, const Call& call) {
  const SimStoreFaults& faults = settings_.faults;
  if (io.now() < faults.throttled_until || one_in(faults.throttled_one_in)) return Fate::throttled;
  if (one_in(faults.dropped_one_in)) return Fate::dropped;
  if (one_in(faults.lost_one_in)) return Fate::lost;
  if (one_in(faults.stalled_one_in)) return Fate::stalled;
  if (call.changes && one_in(faults.late_one_in)) return Fate::late;
  return call.has_body && one_in(faults.torn_one_in) ? Fate::torn : Fate::good;
}

Result<void> SimStore::struck(const Call& call) {
  if (settings_.faults.refuses_all) {
    return fail(Errc::invalid, "{} of {} in {} is not permitted", name_of(call.kind), call.key,
                settings_.name);
  }
  if (fail_nth_ == 0 || (fail_kind_ && *fail_kind_ != call.kind) || --fail_nth_ > 0) return ok;
  failed_ = true;
  return fail(fail_code_, "{} of {} in {} failed, as it was told to", name_of(call.kind), call.key,
              settings_.name);
}

// One request: whether the client knows what came of it.
Result<SimStore::Outcome> SimStore::once(Io& io, Call& call) {
  if (killed_) return dead(call);
  const uint64_t number = ++requests_;
  if (!late_.empty() && prng_.one_in(16)) land();
  if (before) before({number, call.kind, call.key});
  if (number == kill_at_) {
    killed_ = true;
    if (kill_after_) (void)call.effect();
    return dead(call);
  }
  TRY(struck(call));
  pause(io, call.kind);
  // Who was under way when the client died has reached the bucket, or has not.
  if (killed_ && prng_.one_in(2)) return dead(call);
  const Fate fate = draw(io, call);
  if (fate == Fate::throttled) return Outcome::refused;
  if (fate == Fate::dropped) return Outcome::unknown;
  if (fate == Fate::late) {
    late_.push_back(call.effect);
    return Outcome::unknown;
  }
  const bool happens = fate != Fate::stalled || prng_.one_in(2);
  // A torn upload is refused by its checksum; a torn download has been paid for.
  if (fate == Fate::torn && call.kind == RequestKind::put) return Outcome::refused;
  Result<void> answer = ok;
  if (happens) answer = call.effect();
  if (fate == Fate::stalled) io.sleep(settings_.deadline);
  pause(io, call.kind);
  if (killed_) return dead(call);
  if (fate != Fate::good) return Outcome::unknown;
  TRY(std::move(answer));
  return Outcome::answered;
}

Result<void> SimStore::ask(Io& io, Call& call) {
  const Time begin = io.now();
  Duration wait = kFirstPause;
  for (;;) {
    const Outcome outcome = TRY(once(io, call));
    if (outcome == Outcome::answered) return ok;
    call.unknown |= outcome == Outcome::unknown;
    if (io.now() + wait - begin > settings_.patience) {
      return fail(Errc::timed_out, "{} of {} in {}: no good answer within {} s", name_of(call.kind),
                  call.key, settings_.name,
                  std::chrono::duration_cast<std::chrono::seconds>(settings_.patience).count());
    }
    ++counters_.retries;
    io.sleep(wait / 2 + Duration(static_cast<int64_t>(
                            prng_.below(static_cast<uint64_t>((wait / 2).count()) + 1))));
    wait = std::min(wait * 2, kLongestPause);
  }
}

Result<SimBucket::Object*> SimStore::find(const std::string& key) {
  const auto found = bucket_.objects.find(key);
  if (found == bucket_.objects.end()) {
    return fail(Errc::not_found, "no object {} in {}", key, settings_.name);
  }
  return &found->second;
}

void SimStore::bury(Io& io, std::map<std::string, SimBucket::Object>::iterator found) {
  const SimBucket::Object& object = found->second;
  bucket_.ledger.died(object.storage_class, object.body->size(), object.born_ns, now(io));
  bucket_.objects.erase(found);
}

ObjectInfo SimStore::info_of(Io& io, const std::string& key,
                             const SimBucket::Object& object) const {
  const bool deferred = bucket_.ledger.price_of(object.storage_class).thaw_ns >= 0;
  return {.key = key,
          .bytes = object.body->size(),
          .modified_ns = object.born_ns,
          .storage_class = object.storage_class,
          .state = object.state(now(io), deferred)};
}

Result<void> SimStore::put(Io& io, const std::string& key, Iovec body, const PutHow& how) {
  CHECK(is_object_key(key), "'{}' is no key of an object", key);
  CHECK(how.storage_class.empty() || is_storage_class(how.storage_class), "{}", how.storage_class);
  ++counters_.puts;
  const auto copy = copy_of(body);
  std::string storage_class = how.storage_class;
  if (storage_class.empty() || settings_.faults.ignores_classes) storage_class = kStandardClass;
  Call call{RequestKind::put, key, true, {}, true};
  call.effect = [this, &io, key, copy, storage_class, once = how.once]() -> Result<void> {
    bucket_.ledger.requested(RequestKind::put, storage_class);
    bucket_.ledger.received(copy->size());
    const auto found = bucket_.objects.find(key);
    if (found != bucket_.objects.end()) {
      if (once && !settings_.faults.ignores_once) {
        return fail(Errc::exists, "object {} in {} is there already", key, settings_.name);
      }
      bury(io, found);
    }
    const int64_t born = now(io);
    bucket_.objects[key] = {.body = copy, .storage_class = storage_class, .born_ns = born};
    bucket_.ledger.stored(storage_class, copy->size(), born);
    last_made_ = key;
    return ok;
  };
  const Result<void> done = ask(io, call);
  if (!done && done.error().code == Errc::exists && call.unknown) {
    return fail(Errc::io,
                "object {} in {} is there, after a try whose answer was lost: it may be ours", key,
                settings_.name);
  }
  if (!done) return done.error();
  counters_.bytes_put += copy->size();
  return ok;
}

Result<ObjectInfo> SimStore::head(Io& io, const std::string& key) {
  CHECK(is_object_key(key), "'{}' is no key of an object", key);
  ++counters_.heads;
  ObjectInfo info;
  Call call{RequestKind::head, key, false, [&]() -> Result<void> {
              bucket_.ledger.requested(RequestKind::head, std::string(kStandardClass));
              info = info_of(io, key, *TRY(find(key)));
              return ok;
            }};
  TRY(ask(io, call));
  return info;
}

Result<size_t> SimStore::get(Io& io, const std::string& key, uint64_t at, Bytes into) {
  CHECK(is_object_key(key), "'{}' is no key of an object", key);
  ++counters_.gets;
  size_t got = 0;
  Call call{RequestKind::get, key, true, [&]() -> Result<void> {
              SimBucket::Object& object = *TRY(find(key));
              bucket_.ledger.requested(RequestKind::get, object.storage_class);
              if (info_of(io, key, object).state != ObjectInfo::State::ready) {
                return fail(Errc::busy, "object {} in {} is frozen: thaw it first", key,
                            settings_.name);
              }
              const uint64_t size = object.body->size();
              got = at >= size ? 0 : std::min<uint64_t>(into.size(), size - at);
              if (got > 0) std::memcpy(into.data(), object.body->data() + at, got);
              bucket_.ledger.sent(got, object.storage_class);
              return ok;
            }};
  TRY(ask(io, call));
  counters_.bytes_got += got;
  return got;
}

Result<std::vector<ObjectInfo>> SimStore::list(Io& io, const std::string& prefix,
                                               const std::string& after, size_t count_max) {
  CHECK(count_max > 0);
  ++counters_.lists;
  std::vector<ObjectInfo> found;
  bool more = true;
  while (more && found.size() < count_max) {
    const std::string from = found.empty() ? after : found.back().key;
    const size_t page_end = std::min(count_max, found.size() + kListPage);
    const size_t page_begin = found.size();
    Call call{RequestKind::list, prefix, false, [&]() -> Result<void> {
                found.resize(page_begin);
                bucket_.ledger.requested(RequestKind::list, std::string(kStandardClass));
                const SimStoreFaults& faults = settings_.faults;
                auto next = from < prefix && !faults.ignores_prefixes
                                ? bucket_.objects.lower_bound(prefix)
                                : bucket_.objects.upper_bound(from);
                for (; next != bucket_.objects.end() && found.size() < page_end; ++next) {
                  if (!next->first.starts_with(prefix) && !faults.ignores_prefixes) break;
                  if (faults.lists_late && next->first == last_made_) continue;
                  found.push_back(info_of(io, next->first, next->second));
                }
                return ok;
              }};
    TRY(ask(io, call));
    more = found.size() == page_end;
  }
  return found;
}

Result<void> SimStore::remove(Io& io, const std::string& key) {
  CHECK(is_object_key(key), "'{}' is no key of an object", key);
  ++counters_.removes;
  Call call{RequestKind::remove, key, false,
            [this, &io, key]() -> Result<void> {
              bucket_.ledger.requested(RequestKind::remove, std::string(kStandardClass));
              const auto found = bucket_.objects.find(key);
              if (found != bucket_.objects.end()) bury(io, found);
              return ok;
            },
            true};
  return ask(io, call);
}

Result<void> SimStore::thaw(Io& io, const std::string& key, uint32_t days) {
  CHECK(is_object_key(key), "'{}' is no key of an object", key);
  ++counters_.thaws;
  Call call{RequestKind::thaw, key, false, [&]() -> Result<void> {
              SimBucket::Object& object = *TRY(find(key));
              const ClassPrice& price = bucket_.ledger.price_of(object.storage_class);
              bucket_.ledger.requested(RequestKind::thaw, object.storage_class);
              if (price.thaw_ns < 0) return ok;
              if (info_of(io, key, object).state == ObjectInfo::State::frozen) {
                object.thawed_ns = now(io) + price.thaw_ns;
              }
              const int64_t until = std::max(now(io), object.thawed_ns) + days * kDayNs;
              object.frozen_ns =
                  object.frozen_ns == INT64_MAX ? until : std::max(object.frozen_ns, until);
              return ok;
            }};
  return ask(io, call);
}

Result<int64_t> SimStore::wall_clock_ns(Io& io) {
  if (killed_) return fail(Errc::cancelled, "{}: this client is dead", settings_.name);
  return now(io);
}

}  // namespace firn::sim
