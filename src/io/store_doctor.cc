// SPDX-License-Identifier: Apache-2.0
#include "io/store_doctor.h"

#include <algorithm>
#include <cstdlib>
#include <functional>

#include "base/prng.h"

namespace firn {
namespace {

using Verdict = StoreCheck::Verdict;

constexpr size_t kSmall = 100'000;
constexpr int kRaces = 3;
constexpr size_t kRacers = 8;
constexpr int64_t kSecondNs = 1'000'000'000;
constexpr int64_t kSkewWarn = 30;   // Seconds.
constexpr int64_t kSkewFail = 300;  // S3 itself refuses at 900; ages of objects are wrong before.

// A finding; made by fail() like any error, so that checks are straight lines of TRY.
using Finding = Result<std::string>;

class Doctor {
 public:
  Doctor(Io& io, ObjectStore& store, DoctorHow how)
      : io_(io),
        store_(store),
        how_(how),
        place_(fmt::format("firn-doctor/{:016x}/", io.random())) {}

  Result<std::vector<StoreCheck>> examine() {
    // The first word: what fails here would fail everywhere.
    TRY(store_.list(io_, place_, "", 1));
    TRY(put("first", bytes(1)));
    check("read after write", [this] { return read_after_write(); });
    check("overwrite", [this] { return overwrite(); });
    check("ranges", [this] { return ranges(); });
    check("list", [this] { return lists(); });
    check("create once", [this] { return create_once(); });
    check("create once, race", [this] { return race(); });
    check("delete", [this] { return removal(); });
    if (how_.large_bytes > 0) check("large object", [this] { return large(); });
    check("clock", [this] { return clock(); });
    settings();
    clean_up();
    return std::move(checks_);
  }

 private:
  void say(Verdict verdict, std::string name, std::string detail) {
    checks_.push_back({verdict, std::move(name), std::move(detail)});
  }
  void check(const char* name, const std::function<Finding()>& what) {
    Finding found = what();
    if (found) {
      const bool warns = found->starts_with('!');
      say(warns ? Verdict::warn : Verdict::pass, name, warns ? found->substr(1) : *found);
    } else {
      say(Verdict::fail, name, std::string(text_of(found.error())));
    }
  }

  std::vector<std::byte> bytes(size_t count) {
    Prng prng(io_.random());
    std::vector<std::byte> made(count);
    for (std::byte& byte : made) byte = static_cast<std::byte>(prng.next());
    return made;
  }
  Result<void> put(const std::string& key, View body) {
    const ::iovec slice = slice_of(body);
    return store_.put(io_, place_ + key, Iovec(&slice, 1), {});
  }
  Result<void> shows(const std::string& key, View wanted, const char* what) {
    const std::vector<std::byte> there =
        TRY(get_whole(io_, store_, place_ + key, wanted.size() + 1));
    if (!std::ranges::equal(there, wanted)) return fail(Errc::io, "{}", what);
    return ok;
  }
  Result<std::vector<std::string>> keys(const std::string& under, const std::string& after,
                                        size_t count) {
    std::vector<std::string> names;
    const std::vector<ObjectInfo> found =
        TRY(store_.list(io_, place_ + under, after.empty() ? "" : place_ + after, count));
    for (const ObjectInfo& info : found) names.push_back(info.key.substr(place_.size()));
    return names;
  }

  Finding read_after_write() {
    for (int round = 0; round < 5; ++round) {
      const auto body = bytes(kSmall);
      const std::string key = fmt::format("new/{}", round);
      TRY(put(key, body));
      TRY(shows(key, body, "an object that was just put is not what is read"));
      const ObjectInfo info = TRY(store_.head(io_, place_ + key));
      if (info.bytes != kSmall) {
        return fail(Errc::io, "an object of {} bytes is said to have {}", kSmall, info.bytes);
      }
    }
    return std::string("what was put is read at once");
  }

  Finding overwrite() {
    for (int round = 0; round < 5; ++round) {
      const auto body = bytes(kSmall - static_cast<size_t>(round));
      TRY(put("same", body));
      TRY(shows("same", body, "after an overwrite the old object is read"));
    }
    return std::string("the new one is read at once");
  }

  Finding ranges() {
    const auto body = bytes(kSmall);
    TRY(put("range", body));
    for (const uint64_t at : {uint64_t{0}, uint64_t{1}, uint64_t{50'000}, uint64_t{kSmall - 10}}) {
      std::vector<std::byte> room(1000);
      const size_t wanted = std::min<size_t>(room.size(), kSmall - at);
      const size_t got = TRY(store_.get(io_, place_ + "range", at, room));
      const auto from = body.begin() + static_cast<ptrdiff_t>(at);
      if (got != wanted || !std::equal(from, from + static_cast<ptrdiff_t>(got), room.begin())) {
        return fail(Errc::io, "1000 bytes at {} of {}: {} came, or others", at, kSmall, got);
      }
    }
    return std::string("parts of objects are read");
  }

  Finding lists() {
    std::vector<std::string> wanted = {"l/a-b", "l/a.b", "l/a/b", "l/a/c/d", "l/a0",
                                       "l/a=b", "l/A",   "l/b",   "l/z_1",   "l/z"};
    for (const std::string& key : wanted) TRY(put(key, bytes(1)));
    std::ranges::sort(wanted);
    if (TRY(keys("l/", "", 100)) != wanted) {
      return fail(Errc::io, "objects that were just put are not listed, or not in order of bytes");
    }
    std::vector<std::string> pages;
    for (std::string after;;) {
      const std::vector<std::string> page = TRY(keys("l/", after, 3));
      if (page.size() > 3) return fail(Errc::io, "a page of 3 has {}", page.size());
      pages.insert(pages.end(), page.begin(), page.end());
      if (page.size() < 3) break;
      after = page.back();
    }
    if (pages != wanted) return fail(Errc::io, "pages of 3 together are not the whole list");
    TRY(store_.remove(io_, place_ + "l/b"));
    std::erase(wanted, "l/b");
    if (TRY(keys("l/", "", 100)) != wanted) {
      return fail(Errc::io, "an object that was just removed is still listed");
    }
    return std::string("complete, in order, in pages");
  }

  Finding create_once() {
    const auto first = bytes(1000);
    TRY(put_once(io_, store_, place_ + "once", first));
    const Result<void> again = put_once(io_, store_, place_ + "once", bytes(1000));
    if (again) {
      return fail(
          Errc::unsupported,
          "the store ignores conditions: a second 'create, if it is not there' replaced the "
          "object; two hosts would overwrite each other's catalogs");
    }
    if (again.error().code != Errc::exists) return again.error();
    TRY(shows("once", first, "the refused second object is there all the same"));
    return std::string("the second is refused");
  }

  Finding race() {
    for (int round = 0; round < kRaces; ++round) {
      const std::string key = fmt::format("race/{}", round);
      std::vector<std::vector<std::byte>> bodies;
      for (size_t i = 0; i < kRacers; ++i) bodies.push_back(bytes(5000 + i));
      std::vector<size_t> made;
      std::vector<Error> odd;
      Group group(io_);
      for (size_t i = 0; i < kRacers; ++i) {
        io_.spawn(group, [&, i] {
          const Result<void> done = put_once(io_, store_, place_ + key, bodies[i]);
          if (done) made.push_back(i);
          if (!done && done.error().code != Errc::exists) odd.push_back(done.error());
        });
      }
      group.wait();
      if (!odd.empty()) return odd.front();
      if (made.size() != 1) {
        return fail(Errc::unsupported, "of {} at the same time {} made the object", kRacers,
                    made.size());
      }
      TRY(shows(key, bodies[made[0]], "the object is not that of the one who made it"));
    }
    return fmt::format("of {} at the same time one makes it, {} times", kRacers, kRaces);
  }

  Finding removal() {
    TRY(put("gone", bytes(10)));
    TRY(store_.remove(io_, place_ + "gone"));
    const Result<ObjectInfo> info = store_.head(io_, place_ + "gone");
    if (info) return fail(Errc::io, "an object that was just removed is still there");
    if (info.error().code != Errc::not_found) return info.error();
    TRY(store_.remove(io_, place_ + "gone"));
    return std::string("gone at once; twice is no error");
  }

  Finding large() {
    const auto body = bytes(how_.large_bytes);
    TRY(put("large", body));
    TRY(shows("large", body, "a large object is not read as it was put"));
    return fmt::format("{} bytes, in parts where the store has parts", how_.large_bytes);
  }

  Finding clock() {
    const int64_t theirs = TRY(store_.wall_clock_ns(io_));
    const int64_t seconds = (theirs - io_.wall_clock_ns()) / kSecondNs;
    if (std::abs(seconds) >= kSkewFail) {
      return fail(Errc::invalid, "the store's clock is {} s {} of this host's", std::abs(seconds),
                  seconds > 0 ? "ahead" : "behind");
    }
    if (std::abs(seconds) >= kSkewWarn) return fmt::format("!{} s apart", std::abs(seconds));
    return std::string("the store's and this host's agree");
  }

  // What the bucket does on its own.
  void settings() {
    const Result<StoreFacts> asked = store_.facts(io_);
    if (!asked) {
      return say(Verdict::warn, "settings", std::string(text_of(asked.error())));
    }
    const StoreFacts& facts = *asked;
    if (!facts.told) return;
    say(facts.encrypted_path ? Verdict::pass : Verdict::warn, "transport",
        facts.encrypted_path ? "TLS"
                             : "plain HTTP: signed, so nobody changes it; anybody reads it");
    if (facts.versioning == "Enabled") {
      say(Verdict::warn, "versioning",
          "on: what is deleted stays, and costs, until a rule removes noncurrent versions");
    } else {
      say(Verdict::pass, "versioning", "off");
    }
    lock(facts);
    rules(facts);
    for (const std::string& mute : facts.mute) say(Verdict::warn, "settings", mute);
  }

  void lock(const StoreFacts& facts) {
    if (!facts.lock_mode.empty()) {
      say(Verdict::warn, "object lock",
          fmt::format("{} for {}: nothing can be cleaned up before", facts.lock_mode,
                      facts.lock_period));
    } else {
      say(Verdict::pass, "object lock", facts.lock_enabled ? "possible, not by default" : "off");
    }
  }

  void rules(const StoreFacts& facts) {
    for (const StoreFacts::Rule& rule : facts.rules) {
      const bool freezes = rule.transition == "GLACIER" || rule.transition == "DEEP_ARCHIVE";
      std::string what = fmt::format("rule '{}' ", rule.id);
      if (rule.expires) {
        what += "deletes objects under this prefix: an archive would lose its data";
      } else {
        what += fmt::format("moves objects under this prefix to {}{}", rule.transition,
                            freezes ? ", where nothing can be read at once" : "");
      }
      say(rule.expires || freezes ? Verdict::fail : Verdict::warn, "lifecycle", what);
    }
    if (facts.rules.empty()) say(Verdict::pass, "lifecycle", "no rule touches this prefix");
  }

  void clean_up() {
    std::string after;
    for (;;) {
      const auto left = store_.list(io_, place_, after, 1000);
      if (!left || left->empty()) return;
      for (const ObjectInfo& info : *left) {
        const Result<void> gone = store_.remove(io_, info.key);
        if (!gone) {
          return say(Verdict::warn, "cleaning up",
                     fmt::format("{} stays: {}", place_, text_of(gone.error())));
        }
      }
      after = left->back().key;
    }
  }

  Io& io_;
  ObjectStore& store_;
  DoctorHow how_;
  std::string place_;
  std::vector<StoreCheck> checks_;
};

}  // namespace

const char* name_of(StoreCheck::Verdict verdict) {
  switch (verdict) {
    case Verdict::pass:
      return "pass";
    case Verdict::warn:
      return "warn";
    case Verdict::fail:
      return "fail";
  }
  return "fail";
}

Result<std::vector<StoreCheck>> examine_store(Io& io, ObjectStore& store, DoctorHow how) {
  return Doctor(io, store, how).examine();
}

}  // namespace firn
