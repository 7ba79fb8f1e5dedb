// SPDX-License-Identifier: Apache-2.0
// Ledger: what an object store would have charged. Requests by kind, bytes, storage by class over
// time, retrievals, and the rest of a minimum duration that was not served.
//
// Contract:
//  L1  The price of what is stored now is charged up to the moment of the question, and once only.
//  L2  Replacing an object is deleting it: the fee for dying early is due.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>

namespace firn::sim {

enum class RequestKind : uint8_t { put, get, head, list, remove, thaw };
inline constexpr size_t kRequestKinds = 6;
const char* name_of(RequestKind kind);

// Dollars, as price lists give them: per GB (10^9 bytes) and month (30 days), per 1,000 requests.
struct ClassPrice {
  double gb_month = 0;
  double puts = 0;  // And lists, in the standard class.
  double gets = 0;
  double retrieved_gb = 0;
  double thaws = 0;
  uint32_t days_min = 0;
  uint64_t bytes_min = 0;  // A smaller object is charged as if it had so many.
  uint64_t overhead = 0;   // Charged with each object.
  int64_t thaw_ns = -1;    // How long a thaw takes; -1: it is readable at once.
};
// What a large provider asks, rounded: enough to compare plans. Any class that is not named here
// costs what STANDARD does.
const std::map<std::string, ClassPrice>& list_prices();

class Ledger {
 public:
  explicit Ledger(std::map<std::string, ClassPrice> prices = list_prices())
      : prices_(std::move(prices)) {}

  const ClassPrice& price_of(const std::string& storage_class) const;
  void requested(RequestKind kind, const std::string& storage_class, uint64_t count = 1);
  void received(uint64_t bytes) { bytes_in_ += bytes; }
  void sent(uint64_t bytes, const std::string& storage_class);
  void stored(const std::string& storage_class, uint64_t bytes, int64_t now_ns);
  void died(const std::string& storage_class, uint64_t bytes, int64_t born_ns, int64_t now_ns);

  uint64_t requests(RequestKind kind) const { return requests_[static_cast<size_t>(kind)]; }
  uint64_t bytes_in() const { return bytes_in_; }
  uint64_t bytes_out() const { return bytes_out_; }
  uint64_t bytes_stored(const std::string& storage_class) const;
  uint64_t early_deaths() const { return early_deaths_; }

  double request_fees() const { return request_fees_; }
  double retrieval_fees() const { return retrieval_fees_; }
  double early_fees() const { return early_fees_; }
  double storage_fees(int64_t now_ns);
  double total(int64_t now_ns) {
    return storage_fees(now_ns) + request_fees_ + retrieval_fees_ + early_fees_;
  }

 private:
  struct Held {
    uint64_t bytes = 0;    // As they are.
    uint64_t charged = 0;  // As they are charged.
    int64_t since_ns = 0;  // When `fees` was brought up to date.
    double fees = 0;
  };
  uint64_t charged_bytes(const ClassPrice& price, uint64_t bytes) const;
  void bring_up_to(const std::string& storage_class, Held& held, int64_t now_ns) const;

  std::map<std::string, ClassPrice> prices_;
  std::array<uint64_t, kRequestKinds> requests_{};
  uint64_t bytes_in_ = 0, bytes_out_ = 0, early_deaths_ = 0;
  double request_fees_ = 0, retrieval_fees_ = 0, early_fees_ = 0;
  std::map<std::string, Held> held_;
};

}  // namespace firn::sim
