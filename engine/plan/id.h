// Typed numbers of nodes, buffers and kernels, and tables that only numbers of one type index: a
// buffer's number can't look up a node.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <iterator>
#include <utility>
#include <vector>

namespace fluxion::plan {

// The number of a thing of kind `Kind`; -1 means none.
template <class Kind>
struct Id {
  std::int32_t number = -1;

  constexpr Id() = default;
  constexpr explicit Id(std::int64_t n) : number(static_cast<std::int32_t>(n)) {}
  constexpr std::size_t index() const { return static_cast<std::size_t>(number); }
  constexpr explicit operator bool() const { return number >= 0; }
  constexpr auto operator<=>(const Id&) const = default;
};

using NodeId = Id<struct NodeKind>;      // of Graph::nodes
using BufferId = Id<struct MemoryKind>;  // of the memory that kernels share, while planning
using KernelId = Id<struct KernelKind>;

// The ids from `first` up to, not including, `end`.
template <class I>
class IdRange {
 public:
  class Iterator {
   public:
    using iterator_category = std::bidirectional_iterator_tag;
    using value_type = I;
    using difference_type = std::ptrdiff_t;
    using pointer = const I*;
    using reference = I;
    Iterator() = default;
    explicit Iterator(I id) : id_(id) {}
    I operator*() const { return id_; }
    Iterator& operator++() { return ++id_.number, *this; }
    Iterator& operator--() { return --id_.number, *this; }
    Iterator operator++(int) { return Iterator(std::exchange(id_, I(id_.number + 1))); }
    Iterator operator--(int) { return Iterator(std::exchange(id_, I(id_.number - 1))); }
    bool operator==(const Iterator&) const = default;

   private:
    I id_;
  };

  IdRange(I first, I end) : first_(first), end_(end) {}
  Iterator begin() const { return Iterator(first_); }
  Iterator end() const { return Iterator(end_); }
  auto rbegin() const { return std::reverse_iterator(end()); }
  auto rend() const { return std::reverse_iterator(begin()); }

 private:
  I first_, end_;
};

// A range of ids, from the last to the first.
template <class I>
class ReversedIds {
 public:
  explicit ReversedIds(IdRange<I> ids) : ids_(ids) {}
  auto begin() const { return ids_.rbegin(); }
  auto end() const { return ids_.rend(); }

 private:
  IdRange<I> ids_;
};

// A vector indexed by ids of type I.
template <class I, class T>
class Indexed {
 public:
  Indexed() = default;
  explicit Indexed(std::size_t count, const T& value = T()) : items_(count, value) {}
  Indexed(std::initializer_list<T> items) : items_(items) {}

  decltype(auto) operator[](I id) { return items_[id.index()]; }
  decltype(auto) operator[](I id) const { return items_[id.index()]; }
  I add(T item) {
    items_.push_back(std::move(item));
    return last();
  }
  void remove_last() { items_.pop_back(); }
  I last() const { return I(std::ssize(items_) - 1); }

  std::size_t size() const { return items_.size(); }
  bool empty() const { return items_.empty(); }
  void resize(std::size_t count, const T& value = T()) { items_.resize(count, value); }
  IdRange<I> ids() const { return {I(0), I(std::ssize(items_))}; }
  ReversedIds<I> reversed_ids() const { return ReversedIds<I>(ids()); }
  auto begin() { return items_.begin(); }
  auto end() { return items_.end(); }
  auto begin() const { return items_.begin(); }
  auto end() const { return items_.end(); }
  const std::vector<T>& items() const { return items_; }
  bool operator==(const Indexed&) const = default;

 private:
  std::vector<T> items_;
};

}  // namespace fluxion::plan
