// SPDX-License-Identifier: Apache-2.0
// An intrusive doubly linked list: the links live in the element, so that moving it never
// allocates.
#pragma once

#include "base/check.h"

namespace firn {

template <class T>
struct Links {
  T* previous = nullptr;
  T* next = nullptr;
  bool linked = false;
};

// Elements are T, linked through `T::*Member`. The list owns nothing.
template <class T, Links<T> T::*Member>
class List {
 public:
  List() = default;
  List(const List&) = delete;
  List& operator=(const List&) = delete;

  bool empty() const { return first_ == nullptr; }
  T* front() const { return first_; }
  static T* after(const T* element) { return (element->*Member).next; }
  static bool contains(const T* element) { return (element->*Member).linked; }
  size_t count() const { return count_; }

  void push_back(T* element) {
    Links<T>& links = element->*Member;
    CHECK(!links.linked);
    links = {last_, nullptr, true};
    (last_ != nullptr ? (last_->*Member).next : first_) = element;
    last_ = element;
    ++count_;
  }
  void remove(T* element) {
    Links<T>& links = element->*Member;
    CHECK(links.linked);
    (links.previous != nullptr ? (links.previous->*Member).next : first_) = links.next;
    (links.next != nullptr ? (links.next->*Member).previous : last_) = links.previous;
    links = {};
    --count_;
  }
  T* pop_front() {
    T* const element = first_;
    if (element != nullptr) remove(element);
    return element;
  }

 private:
  T* first_ = nullptr;
  T* last_ = nullptr;
  size_t count_ = 0;
};

}  // namespace firn
