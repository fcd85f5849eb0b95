// Trees: nested containers of tensors. Transforms, optimisers, files and compiled functions take
// whole trees.
//
// A tree is a Tensor; a std::pair, std::tuple, std::array, std::vector or std::map<std::string, T>
// of trees; or a struct that lists its members once:
//
//   struct State {
//     std::map<std::string, Tensor> parameters;
//     Tensor step;
//     static auto members(auto& self) { return std::tie(self.parameters, self.step); }
//   };
//
// Any other member is *static*: it must be equality-comparable and copyable, and is part of the
// signature of a compiled function. A tensor may be empty: transforms, rules, eval_tree and
// compiled functions pass such a place on as it is, and it has no derivative. Which places are
// empty is part of the signature too.
#pragma once

#include <any>
#include <array>
#include <concepts>
#include <cstring>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "engine/graph/containers.h"
#include "engine/graph/tensor.h"

namespace fluxion {

namespace tree_detail {
template <class T>
struct IsMap : std::false_type {};
template <class T, class Order, class Allocator>
struct IsMap<std::map<std::string, T, Order, Allocator>> : std::true_type {};
template <class T>
struct IsTuple : std::false_type {};
template <class... T>
struct IsTuple<std::tuple<T...>> : std::true_type {};
template <class A, class B>
struct IsTuple<std::pair<A, B>> : std::true_type {};
template <class T>
concept HasMembers = requires(T& value) {
  T::members(value);
};

// Instantiates ==, since containers declare theirs for elements that have none: a container of
// tensors that is no tree is no static member either.
template <class T>
constexpr auto equal = +[](const T& a, const T& b) -> bool { return a == b; };
// Numbers by their bits, so that NaN is itself and -0 is not 0.
template <std::floating_point T>
constexpr auto equal<T> = +[](const T& a, const T& b) -> bool {
  return std::memcmp(&a, &b, sizeof(T)) == 0;
};
}  // namespace tree_detail

// What f returns for these arguments, as a value.
template <class F, class... Args>
using ResultOf = std::remove_cvref_t<std::invoke_result_t<F, Args...>>;

// Calls leaf(Tensor&) for every tensor and fixed(member) for every static member, vector size and
// map key, in a fixed order. `Value` may be const.
template <class Value, class Leaf, class Fixed>
void visit_tree(Value& value, Leaf&& leaf, Fixed&& fixed) {
  using T = std::remove_const_t<Value>;
  if constexpr (std::is_same_v<T, Tensor>) {
    leaf(value);
  } else if constexpr (IsVector<T>::value || IsArray<T>::value) {
    if constexpr (IsVector<T>::value) fixed(value.size());
    for (auto& item : value) visit_tree(item, leaf, fixed);
  } else if constexpr (tree_detail::IsMap<T>::value) {
    for (auto& [name, item] : value) {
      fixed(name);
      visit_tree(item, leaf, fixed);
    }
  } else if constexpr (tree_detail::IsTuple<T>::value) {
    std::apply([&](auto&... items) { (visit_tree(items, leaf, fixed), ...); }, value);
  } else if constexpr (tree_detail::HasMembers<T>) {
    std::apply([&](auto&... items) { (visit_tree(items, leaf, fixed), ...); }, T::members(value));
  } else {
    static_assert(std::equality_comparable<T> && std::copy_constructible<T>,
                  "a tree member that is no tree must be equality-comparable and copyable");
    static_cast<void>(tree_detail::equal<T>);
    fixed(value);
  }
}

template <class Value, class Leaf>
void visit_tree(Value& value, Leaf&& leaf) {
  visit_tree(value, leaf, [](const auto&) {});
}

// The tensors of a tree, in visiting order.
template <class T>
std::vector<Tensor> leaves(const T& tree) {
  std::vector<Tensor> result;
  visit_tree(tree, [&](const Tensor& tensor) { result.push_back(tensor); });
  return result;
}

// The tensors of a list that are not empty, and which they are; in_places() makes the list again.
inline std::vector<Tensor> without_empty(std::vector<Tensor> tensors) {
  std::erase_if(tensors, [](const Tensor& tensor) { return !tensor; });
  return tensors;
}
inline std::vector<bool> present_in(std::span<const Tensor> tensors) {
  std::vector<bool> present;
  present.reserve(tensors.size());
  for (const Tensor& tensor : tensors) present.push_back(static_cast<bool>(tensor));
  return present;
}
// A list of the size of `present`: the tensors `some`, in order, where it is true; empty ones
// elsewhere.
inline std::vector<Tensor> in_places(std::span<const Tensor> some,
                                     const std::vector<bool>& present) {
  std::vector<Tensor> all(present.size());
  std::size_t next = 0;
  for (std::size_t i = 0; i < present.size(); ++i)
    if (present[i]) all[i] = some[next++];
  return all;
}

// A copy of `tree` with each tensor replaced by f(tensor).
template <class T, class F>
T map_tree(T tree, F&& f) {
  visit_tree(tree, [&](Tensor& tensor) { tensor = f(tensor); });
  return tree;
}

// A copy of `tree` with its tensors replaced by `values`, in visiting order. Throws Error if the
// counts differ.
template <class T>
T with_leaves(T tree, std::span<const Tensor> values) {
  std::size_t next = 0;
  visit_tree(tree, [&](Tensor& tensor) {
    if (next < values.size()) tensor = values[next];
    ++next;
  });
  if (next != values.size())
    throw Error("tree: " + std::to_string(next) + " tensors expected, got " +
                std::to_string(values.size()));
  return tree;
}

// A tree of f(x, y) for the tensors x of a and y of b, and the static members of a. Throws Error if
// the trees differ in their number of tensors.
template <class T, class F>
T zip_tree(T a, const T& b, F&& f) {
  const std::vector<Tensor> other = leaves(b);
  std::size_t next = 0;
  visit_tree(a, [&](Tensor& tensor) {
    if (next >= other.size()) throw Error("tree: the two trees differ in structure");
    tensor = f(tensor, other[next++]);
  });
  if (next != other.size()) throw Error("tree: the two trees differ in structure");
  return a;
}

// The static members of trees, for comparison: part of a compiled function's signature.
class TreeStatics {
 public:
  template <class T>
  void add(const T& tree) {
    visit_tree(
        tree, [](const Tensor&) {},
        [this](const auto& member) {
          using M = std::remove_cvref_t<decltype(member)>;
          items_.push_back({std::any(member), [](const std::any& a, const std::any& b) {
                              const M* right = std::any_cast<M>(&b);
                              return right && tree_detail::equal<M>(*std::any_cast<M>(&a), *right);
                            }});
        });
  }
  bool operator==(const TreeStatics& other) const {
    if (items_.size() != other.items_.size()) return false;
    for (std::size_t i = 0; i < items_.size(); ++i)
      if (!items_[i].equal(items_[i].value, other.items_[i].value)) return false;
    return true;
  }

 private:
  struct Item {
    std::any value;
    bool (*equal)(const std::any&, const std::any&);
  };
  std::vector<Item> items_;
};

// eval of the tensors of a tree.
template <class T>
void eval_tree(const T& tree, const EvalOptions& options = {}) {
  const std::vector<Tensor> tensors = without_empty(leaves(tree));
  eval(std::span<const Tensor>(tensors), options);
}

}  // namespace fluxion
