// SPDX-License-Identifier: Apache-2.0
// Result<T>: a value or an Error, with the member names of std::expected so that C++23 is a rename.
//
// Contract: an Error is born in exactly one place, by fail(), which writes the sentence that names
// the object and the reason. Above that place only the code travels. Nobody throws; see STYLE B4.
#pragma once

#include <fmt/core.h>

#include <cstdint>
#include <memory>
#include <string_view>
#include <type_traits>
#include <utility>

namespace firn {

// A code exists only if some caller reacts to it differently. Values are stable: the control
// protocol carries them by name. 0 is never an error.
enum class Errc : uint8_t {
  io = 1,
  corrupt = 2,
  no_space = 3,
  not_found = 4,
  exists = 5,
  invalid = 6,
  unsupported = 7,
  too_new = 8,
  busy = 9,
  fenced = 10,
  cancelled = 11,
  timed_out = 12,
};

// The name used in logs, metrics and JSON: "io", "corrupt", ...
std::string_view name_of(Errc code);
// The errno that stands for the code at a border (NBD, virtio, exit path).
int errno_of(Errc code);

struct [[nodiscard]] Error {
  Errc code = Errc::io;
  uint8_t spare = 0;
  uint16_t note = 0;  // Where the sentence waits: a slot in this thread's ring of recent sentences.
  int32_t sys = 0;    // The errno that caused it, 0 when none did.
};
static_assert(sizeof(Error) == 8, "an Error travels in a register");

// The sentence written where the error was born. Valid until 1,024 later errors of the same thread.
std::string_view text_of(Error error);

// Births an error: keeps the sentence for text_of(). `sys` is an errno or 0.
Error fail_text(Errc code, int32_t sys, std::string text);

Errc errc_of_errno(int32_t sys);

template <class... Args>
Error fail(Errc code, fmt::format_string<Args...> form, Args&&... args) {
  return fail_text(code, 0, fmt::format(form, std::forward<Args>(args)...));
}
// The same for a system error; " (strerror)" is appended to the sentence.
template <class... Args>
Error fail_errno(int32_t sys, fmt::format_string<Args...> form, Args&&... args) {
  return fail_text(errc_of_errno(sys), sys, fmt::format(form, std::forward<Args>(args)...));
}
template <class T>
class [[nodiscard]] Result {
 public:
  using value_type = T;

  Result(const T& value) : good_(true) { std::construct_at(&value_, value); }
  Result(T&& value) : good_(true) { std::construct_at(&value_, std::move(value)); }
  Result(Error error) : good_(false) { std::construct_at(&error_, error); }
  template <class U>
  requires(std::is_convertible_v<U&&, T> && !std::is_same_v<std::remove_cvref_t<U>, T> &&
           !std::is_same_v<std::remove_cvref_t<U>, Error> &&
           !std::is_same_v<std::remove_cvref_t<U>, Result>) Result(U&& value)
      : good_(true) {
    std::construct_at(&value_, std::forward<U>(value));
  }
  Result(Result&& other) noexcept : good_(other.good_) {
    if (good_) {
      std::construct_at(&value_, std::move(other.value_));
    } else {
      std::construct_at(&error_, other.error_);
    }
  }
  Result& operator=(Result&& other) noexcept {
    if (this != &other) {
      std::destroy_at(this);
      std::construct_at(this, std::move(other));
    }
    return *this;
  }
  Result(const Result&) = delete;
  Result& operator=(const Result&) = delete;
  ~Result() {
    if (good_) std::destroy_at(&value_);
  }

  bool has_value() const { return good_; }
  explicit operator bool() const { return good_; }
  Error error() const { return error_; }
  T& operator*() & { return value_; }
  const T& operator*() const& { return value_; }
  T* operator->() { return &value_; }
  const T* operator->() const { return &value_; }
  T take() { return std::move(value_); }

 private:
  union {
    T value_;
    Error error_;
  };
  bool good_;
};

template <>
class [[nodiscard]] Result<void> {
 public:
  using value_type = void;
  Result() = default;
  Result(Error error) : error_(error), good_(false) {}
  bool has_value() const { return good_; }
  explicit operator bool() const { return good_; }
  Error error() const { return error_; }
  void operator*() const {}
  void take() const {}

 private:
  Error error_{};
  bool good_ = true;
};

struct OkTag {
  operator Result<void>() const { return {}; }
};
inline constexpr OkTag ok{};

}  // namespace firn

#define FIRN_JOIN2(a, b) a##b
#define FIRN_JOIN(a, b) FIRN_JOIN2(a, b)
#define FIRN_TRY(expr, name) \
  __extension__({            \
    auto name = (expr);      \
    if (!name) [[unlikely]]  \
      return name.error();   \
    name.take();             \
  })
// The value of `expr`, or return its error from the enclosing function.
#define TRY(expr) FIRN_TRY(expr, FIRN_JOIN(try_, __COUNTER__))
