#include "backends/cpu/tape/tape_memory.h"

#include <algorithm>
#include <cstring>

#include "backends/cpu/tape/tape_convert.h"

namespace fluxion::cpu_backend {

namespace {

template <class Lane, class Stored>
void copy_in(std::byte* out, const std::byte* in, std::int64_t step, std::int64_t n) {
  Lane* to = reinterpret_cast<Lane*>(out);
  const Stored* from = reinterpret_cast<const Stored*>(in);
  if (step == 1) {
    if constexpr (std::is_same_v<Lane, Stored>) {
      std::memcpy(to, from, static_cast<std::size_t>(n) * sizeof(Lane));
    } else {
      for (std::int64_t i = 0; i < n; ++i) to[i] = convert_lane<Lane>(from[i]);
    }
  } else if (step == 0) {
    std::fill_n(to, n, convert_lane<Lane>(*from));
  } else {
    for (std::int64_t i = 0; i < n; ++i) to[i] = convert_lane<Lane>(from[i * step]);
  }
}

template <class Lane, class Stored>
void copy_out(std::byte* out, std::int64_t step, const std::byte* in, std::int64_t n) {
  Stored* to = reinterpret_cast<Stored*>(out);
  const Lane* from = reinterpret_cast<const Lane*>(in);
  if (step == 1) {
    if constexpr (std::is_same_v<Lane, Stored>) {
      std::memcpy(to, from, static_cast<std::size_t>(n) * sizeof(Lane));
    } else {
      for (std::int64_t i = 0; i < n; ++i) to[i] = convert_lane<Stored>(from[i]);
    }
  } else {
    for (std::int64_t i = 0; i < n; ++i) to[i * step] = convert_lane<Stored>(from[i]);
  }
}

template <class T>
void transpose(std::byte* out, std::int64_t pitch, const std::byte* in, std::int64_t step,
               std::int64_t rows, std::int64_t columns) {
  constexpr std::int64_t line = 64 / sizeof(T);
  T* to = reinterpret_cast<T*>(out);
  const T* from = reinterpret_cast<const T*>(in);
  for (std::int64_t row = 0; row < rows; row += line) {
    const std::int64_t n = std::min(line, rows - row);
    for (std::int64_t column = 0; column < columns; ++column)
      for (std::int64_t i = 0; i < n; ++i)
        to[(row + i) * pitch + column] = from[row + i + column * step];
  }
}

}  // namespace

CopyIn find_copy_in(DType storage, DType lane) {
  return with_register_type(lane, [&](auto to) {
    return with_storage_type(
        storage, [&](auto from) -> CopyIn { return copy_in<decltype(to), decltype(from)>; });
  });
}

CopyOut find_copy_out(DType lane, DType storage) {
  return with_register_type(lane, [&](auto from) {
    return with_storage_type(
        storage, [&](auto to) -> CopyOut { return copy_out<decltype(from), decltype(to)>; });
  });
}

LaneRange valid_lanes_slow(const Access& access, const std::int64_t* values,
                           const std::int64_t* steps, std::int64_t n) {
  LaneRange range{0, n};
  for (std::size_t f = 1; f < access.functions(); ++f) {
    const std::int64_t value = values[f], step = steps[f], low = access.low[f],
                       high = access.high[f];
    if (step == 0) {
      if (value < low || value >= high) return {0, 0};
    } else if (step > 0) {  // low <= value + i step < high
      range.first = std::max(range.first, ceil_div(low - value, step));
      range.last = std::min(range.last, ceil_div(high - value, step));
    } else {  // value - high < i |step| <= value - low
      range.first = std::max(range.first, ceil_div(value - high + 1, -step));
      range.last = std::min(range.last, ceil_div(value - low + 1, -step));
    }
  }
  if (range.first >= range.last) return {0, 0};
  return range;
}

void copy_transposed(std::byte* out, std::int64_t pitch, const std::byte* in, std::int64_t step,
                     std::int64_t rows, std::int64_t columns, std::int64_t bytes) {
  if (bytes == 8)
    transpose<std::uint64_t>(out, pitch, in, step, rows, columns);
  else
    transpose<std::uint32_t>(out, pitch, in, step, rows, columns);
}

void fill_affine(std::byte* out, DType dtype, std::int64_t value, std::int64_t step,
                 std::int64_t n) {
  with_register_type(dtype, [&](auto lane) {
    using Lane = decltype(lane);
    Lane* to = reinterpret_cast<Lane*>(out);
    for (std::int64_t i = 0; i < n; ++i) to[i] = convert_lane<Lane>(value + i * step);
  });
}

}  // namespace fluxion::cpu_backend
