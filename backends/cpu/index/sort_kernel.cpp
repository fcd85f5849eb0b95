#include "backends/cpu/index/sort_kernel.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstdint>
#include <functional>
#include <utility>

#include "backends/cpu/index/instance_of.h"
#include "backends/cpu/runtime/scratch.h"

namespace fluxion::cpu_backend {

namespace {

// Shorter lines are sorted by comparisons.
constexpr std::int64_t radix_length = 512;
constexpr std::int64_t least_task_elements = 4096;  // that one task sorts at least

// A value as an unsigned key of the same order, and its position.
template <class Key>
struct Item {
  Key key;
  std::uint32_t position;
  bool operator<(const Item& other) const {
    return key < other.key || (key == other.key && position < other.position);
  }
};

template <class T>
using KeyOf = std::conditional_t<sizeof(T) == 8, std::uint64_t, std::uint32_t>;

// The key increases with the value (decreases if `descending`). -0 has the key of 0. NaN has the
// largest key, which no number has.
template <class T>
KeyOf<T> key_of(T value, bool descending) {
  using Key = KeyOf<T>;
  constexpr Key sign = Key{1} << (8 * sizeof(Key) - 1), all = ~Key{0};
  Key key;
  if constexpr (std::is_floating_point_v<T>) {
    if (value != value) return all;
    key = std::bit_cast<Key>(value == 0 ? T{0} : value);
    key ^= key & sign ? all : sign;
  } else {
    key = static_cast<Key>(value) ^ (std::is_signed_v<T> ? sign : 0);
  }
  return descending ? ~key : key;
}

// Radix sort, least significant byte first; each pass is stable. Returns where the result lies,
// `items` or `other`.
template <class Key>
Item<Key>* radix_sort(Item<Key>* items, Item<Key>* other, std::int64_t length) {
  for (unsigned shift = 0; shift < 8 * sizeof(Key); shift += 8) {
    const auto digit = [shift](const Item<Key>& item) {
      return static_cast<std::size_t>(item.key >> shift & 255);
    };
    std::uint32_t places[256] = {};
    for (std::int64_t i = 0; i < length; ++i) ++places[digit(items[i])];
    if (places[digit(items[0])] == length) continue;  // one byte throughout
    std::uint32_t place = 0;
    for (std::uint32_t& count : places) place += std::exchange(count, place);
    for (std::int64_t i = 0; i < length; ++i) other[places[digit(items[i])]++] = items[i];
    std::swap(items, other);
  }
  return items;
}

// A tensor as [outer, length, inner] around the axis.
struct Lines {
  std::int64_t outer = 1, length = 1, inner = 1;
  explicit Lines(const OpKernel& kernel) {
    const Shape& shape = kernel.input_types[0].shape;
    const std::int64_t axis = std::get<SortAttributes>(kernel.attributes).axis;
    for (std::int64_t i = 0; i < shape.rank(); ++i)
      (i < axis ? outer : i == axis ? length : inner) *= shape[i];
  }
  std::int64_t count() const { return length == 0 ? 0 : outer * inner; }
  std::int64_t tasks(int threads) const {
    return std::clamp<std::int64_t>(count() * length / least_task_elements, 1, threads);
  }
  // Of one task, in bytes.
  template <class T>
  std::size_t scratch() const {
    const std::int64_t items = length < radix_length ? length : 2 * length;
    return (static_cast<std::size_t>(items) * sizeof(Item<KeyOf<T>>) + 63) / 64 * 64;
  }
};

template <class T>
void argsort(const OpKernel& kernel, std::byte* const* inputs, std::byte* output,
             const ThreadPool& pool, std::byte* scratch) {
  const Lines lines(kernel);
  if (lines.count() == 0) return;
  const bool descending = std::get<SortAttributes>(kernel.attributes).descending;
  const T* from = reinterpret_cast<const T*>(inputs[0]);
  std::int32_t* to = reinterpret_cast<std::int32_t*>(output);
  std::atomic<std::int64_t> next{0};
  const auto work = [&](std::int64_t task) {
    auto* const items = reinterpret_cast<Item<KeyOf<T>>*>(
        scratch + lines.scratch<T>() * static_cast<std::size_t>(task));
    for (std::int64_t line = next++; line < lines.count(); line = next++) {
      const std::int64_t start =
          line / lines.inner * lines.length * lines.inner + line % lines.inner;
      for (std::int64_t i = 0; i < lines.length; ++i)
        items[i] = {key_of(from[start + i * lines.inner], descending),
                    static_cast<std::uint32_t>(i)};
      const Item<KeyOf<T>>* sorted = items;
      if (lines.length < radix_length)
        std::sort(items, items + lines.length);
      else
        sorted = radix_sort(items, items + lines.length, lines.length);
      for (std::int64_t i = 0; i < lines.length; ++i)
        to[start + i * lines.inner] = static_cast<std::int32_t>(sorted[i].position);
    }
  };
  pool.parallel_for(lines.tasks(pool.threads()),
                    std::ref(work));  // a reference: std::function then allocates nothing
}

}  // namespace

SortFunction argsort_of(DType dtype) {
  return instance_of(dtype, []<class T>(T) -> SortFunction { return argsort<T>; });
}

std::size_t argsort_scratch_bytes(const OpKernel& kernel, int threads) {
  const Lines lines(kernel);
  const std::size_t each =
      kernel.input_types[0].dtype == DType::f64 ? lines.scratch<double>() : lines.scratch<float>();
  return static_cast<std::size_t>(
      scratch_product({static_cast<std::int64_t>(each), lines.tasks(threads)}));
}

}  // namespace fluxion::cpu_backend
