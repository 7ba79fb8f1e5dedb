// SPDX-License-Identifier: Apache-2.0
#include "sim/ledger.h"

#include <algorithm>

#include "base/check.h"

namespace firn::sim {
namespace {

constexpr int64_t kHourNs = int64_t{3600} * 1'000'000'000;
constexpr double kMonthNs = 30.0 * 24 * static_cast<double>(kHourNs);
constexpr double kGb = 1e9;
constexpr uint64_t kStandardOverhead = 8 * 1024;
constexpr uint64_t kColdOverhead = 32 * 1024;

}  // namespace

const char* name_of(RequestKind kind) {
  static constexpr std::array<const char*, kRequestKinds> kNames = {"put",  "get",    "head",
                                                                    "list", "remove", "thaw"};
  return kNames[static_cast<size_t>(kind)];
}

const std::map<std::string, ClassPrice>& list_prices() {
  static const std::map<std::string, ClassPrice> prices = {
      {"STANDARD", {.gb_month = 0.023, .puts = 0.005, .gets = 0.0004}},
      {"STANDARD_IA",
       {.gb_month = 0.0125,
        .puts = 0.01,
        .gets = 0.001,
        .retrieved_gb = 0.01,
        .days_min = 30,
        .bytes_min = 128 * 1024}},
      {"GLACIER_IR",
       {.gb_month = 0.004,
        .puts = 0.02,
        .gets = 0.01,
        .retrieved_gb = 0.03,
        .days_min = 90,
        .bytes_min = 128 * 1024}},
      {"GLACIER",
       {.gb_month = 0.0036,
        .puts = 0.03,
        .gets = 0.0004,
        .retrieved_gb = 0.01,
        .thaws = 0.05,
        .days_min = 90,
        .overhead = kStandardOverhead + kColdOverhead,
        .thaw_ns = 5 * kHourNs}},
      {"DEEP_ARCHIVE",
       {.gb_month = 0.00099,
        .puts = 0.05,
        .gets = 0.0004,
        .retrieved_gb = 0.02,
        .thaws = 0.1,
        .days_min = 180,
        .overhead = kStandardOverhead + kColdOverhead,
        .thaw_ns = 12 * kHourNs}},
  };
  return prices;
}

const ClassPrice& Ledger::price_of(const std::string& storage_class) const {
  const auto found = prices_.find(storage_class);
  if (found != prices_.end()) return found->second;
  const auto standard = prices_.find("STANDARD");
  CHECK(standard != prices_.end(), "a price list without STANDARD");
  return standard->second;
}

void Ledger::requested(RequestKind kind, const std::string& storage_class, uint64_t count) {
  requests_[static_cast<size_t>(kind)] += count;
  const ClassPrice& price = price_of(storage_class);
  double each = 0;
  if (kind == RequestKind::put || kind == RequestKind::list) each = price.puts;
  if (kind == RequestKind::get || kind == RequestKind::head) each = price.gets;
  if (kind == RequestKind::thaw) each = price.thaws;
  request_fees_ += each / 1000 * static_cast<double>(count);
}

void Ledger::sent(uint64_t bytes, const std::string& storage_class) {
  bytes_out_ += bytes;
  retrieval_fees_ += static_cast<double>(bytes) / kGb * price_of(storage_class).retrieved_gb;
}

uint64_t Ledger::charged_bytes(const ClassPrice& price, uint64_t bytes) const {
  return std::max(bytes, price.bytes_min) + price.overhead;
}

void Ledger::bring_up_to(const std::string& storage_class, Held& held, int64_t now_ns) const {
  const int64_t passed = std::max<int64_t>(0, now_ns - held.since_ns);
  held.fees += static_cast<double>(held.charged) / kGb * static_cast<double>(passed) / kMonthNs *
               price_of(storage_class).gb_month;
  held.since_ns = std::max(held.since_ns, now_ns);
}

void Ledger::stored(const std::string& storage_class, uint64_t bytes, int64_t now_ns) {
  Held& held = held_[storage_class];
  bring_up_to(storage_class, held, now_ns);
  held.bytes += bytes;
  held.charged += charged_bytes(price_of(storage_class), bytes);
}

void Ledger::died(const std::string& storage_class, uint64_t bytes, int64_t born_ns,
                  int64_t now_ns) {
  const ClassPrice& price = price_of(storage_class);
  Held& held = held_[storage_class];
  bring_up_to(storage_class, held, now_ns);
  held.bytes -= bytes;
  held.charged -= charged_bytes(price, bytes);
  const int64_t missing = price.days_min * 24 * kHourNs - (now_ns - born_ns);
  if (missing <= 0) return;
  ++early_deaths_;
  early_fees_ += static_cast<double>(charged_bytes(price, bytes)) / kGb *
                 static_cast<double>(missing) / kMonthNs * price.gb_month;
}

uint64_t Ledger::bytes_stored(const std::string& storage_class) const {
  const auto found = held_.find(storage_class);
  return found == held_.end() ? 0 : found->second.bytes;
}

double Ledger::storage_fees(int64_t now_ns) {
  double sum = 0;
  for (auto& [name, held] : held_) {
    bring_up_to(name, held, now_ns);
    sum += held.fees;
  }
  return sum;
}

}  // namespace firn::sim
