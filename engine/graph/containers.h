// Which standard container a type is, for generic code over members (trees, serialisation).
#pragma once

#include <array>
#include <type_traits>
#include <vector>

namespace fluxion {

template <class T>
struct IsVector : std::false_type {};
template <class T>
struct IsVector<std::vector<T>> : std::true_type {};
template <class T>
struct IsArray : std::false_type {};
template <class T, std::size_t N>
struct IsArray<std::array<T, N>> : std::true_type {};

}  // namespace fluxion
