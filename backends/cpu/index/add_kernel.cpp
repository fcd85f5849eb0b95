#include "backends/cpu/index/add_kernel.h"

#include <atomic>
#include <cstring>
#include <numeric>

#include "backends/cpu/index/axis_view.h"
#include "backends/cpu/index/instance_of.h"
#include "backends/cpu/runtime/scratch.h"
#include "engine/divide.h"

namespace fluxion::cpu_backend {

namespace {

// out = base, unless it is the base.
void copy_base(const OpKernel& kernel, std::byte* const* inputs, std::byte* output) {
  const std::size_t bytes = kernel.input_types[0].bytes();
  if (bytes > 0 && output != inputs[0]) std::memcpy(output, inputs[0], bytes);
}

// The updates by destination: `order` lists those for d, ascending, from first[d] to first[d + 1].
struct Arrivals {
  std::int64_t* first;
  std::int64_t* order;
};
Arrivals carve_arrivals(Carver& carver, const OpKernel& kernel) {
  const std::int64_t size = view(kernel.input_types[0], axis_of(kernel)).axis;
  std::int64_t* first = carver.take<std::int64_t>(size + 1);
  return {first, carver.take<std::int64_t>(kernel.input_types[1].shape.elements())};
}
Arrivals sort_arrivals(const OpKernel& kernel, const std::int32_t* indices, std::byte* scratch) {
  Carver carver(scratch);
  const Arrivals arrivals = carve_arrivals(carver, kernel);
  const std::int64_t size = view(kernel.input_types[0], axis_of(kernel)).axis,
                     count = kernel.input_types[1].shape.elements();
  std::fill_n(arrivals.first, size + 1, 0);
  for (std::int64_t k = 0; k < count; ++k) ++arrivals.first[clamped(indices[k], size)];
  // From where each list ends to where it begins, by placing its updates from the last one on.
  std::partial_sum(arrivals.first, arrivals.first + size + 1, arrivals.first);
  for (std::int64_t k = count; k-- > 0;)
    arrivals.order[--arrivals.first[clamped(indices[k], size)]] = k;
  return arrivals;
}

// out = base; out[o, indices[k], i] += updates[o, k, i].
template <class T>
void index_add(const OpKernel& kernel, std::byte* const* inputs, std::byte* output,
               const ThreadPool& pool, std::byte* scratch) {
  const AxisView base = view(kernel.input_types[0], axis_of(kernel));
  copy_base(kernel, inputs, output);
  const std::int64_t count = kernel.input_types[1].shape.elements();
  if (base.outer * base.axis * base.inner == 0 || count == 0) return;
  const Arrivals arrivals =
      sort_arrivals(kernel, reinterpret_cast<const std::int32_t*>(inputs[1]), scratch);
  const T* updates = reinterpret_cast<const T*>(inputs[2]);
  T* out = reinterpret_cast<T*>(output);
  constexpr std::int64_t strip = 64;  // columns summed side by side
  const std::int64_t cost = (count + base.axis - 1) / base.axis * base.inner;
  share(pool, base.outer * base.axis, cost, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      const std::int64_t outer = row / base.axis, at = row % base.axis;
      const std::int64_t first = arrivals.first[at], last = arrivals.first[at + 1];
      for (std::int64_t column = 0; first < last && column < base.inner; column += strip) {
        const std::int64_t width = std::min(strip, base.inner - column);
        T* to = out + row * base.inner + column;
        Sum<T> sums[strip];
        std::copy_n(to, width, sums);
        for (std::int64_t k = first; k < last; ++k) {
          const T* from = updates + (outer * count + arrivals.order[k]) * base.inner + column;
          for (std::int64_t i = 0; i < width; ++i)
            sums[i] = plus(sums[i], static_cast<Sum<T>>(from[i]));
        }
        for (std::int64_t i = 0; i < width; ++i) to[i] = static_cast<T>(sums[i]);
      }
    }
  });
}

// The work of scatter_add: tiles of the base, [rows, width], that are summed in one task's memory.
// A strip of columns is one tile; with fewer strips than threads it is several, each of which looks
// at all updates of the strip.
struct Tiles {
  AxisView base;
  std::int64_t updates = 0;  // along the axis
  std::int64_t width = 1, strips_per_row = 0;
  std::int64_t rows = 1, per_strip = 0;
  Tiles(const OpKernel& kernel, int threads)
      : base(view(kernel.input_types[0], axis_of(kernel))),
        updates(view(kernel.input_types[1], axis_of(kernel)).axis) {
    constexpr std::int64_t tile = 65536, narrow = 4, wide = 64;
    if (base.outer * base.axis * base.inner == 0 || updates == 0) return;
    width = std::min(std::clamp(tile / base.axis, narrow, wide), base.inner);
    strips_per_row = ceil_div(base.inner, width);
    const std::int64_t strips = base.outer * strips_per_row,
                       useful = std::min<std::int64_t>(threads, elements() / task_elements);
    rows = ceil_div(base.axis, std::clamp<std::int64_t>(useful / strips, 1, base.axis));
    per_strip = ceil_div(base.axis, rows);
  }
  std::int64_t elements() const { return base.outer * base.inner * (base.axis + updates); }
  std::int64_t count() const { return base.outer * strips_per_row * per_strip; }
  std::int64_t tasks(int threads) const {
    return std::clamp<std::int64_t>(std::min(elements() / task_elements, count()), 1, threads);
  }
  std::int64_t bytes() const {
    return static_cast<std::int64_t>(
        aligned(static_cast<std::size_t>(scratch_product({rows, width, sizeof(double)}))));
  }
};

// out = base; out[o, indices[o, k, i], i] += updates[o, k, i].
template <class T>
void scatter_add(const OpKernel& kernel, std::byte* const* inputs, std::byte* output,
                 const ThreadPool& pool, std::byte* scratch) {
  const Tiles tiles(kernel, pool.threads());
  const AxisView& base = tiles.base;
  copy_base(kernel, inputs, output);
  const std::int32_t* indices = reinterpret_cast<const std::int32_t*>(inputs[1]);
  const T* updates = reinterpret_cast<const T*>(inputs[2]);
  T* out = reinterpret_cast<T*>(output);
  std::atomic<std::int64_t> next{0};
  const auto work = [&](std::int64_t task) {
    auto* const sums = reinterpret_cast<Sum<T>*>(scratch + task * tiles.bytes());
    for (std::int64_t tile = next++; tile < tiles.count(); tile = next++) {
      const std::int64_t first = tile % tiles.per_strip * tiles.rows,
                         rows = std::min(tiles.rows, base.axis - first),
                         strip = tile / tiles.per_strip, outer = strip / tiles.strips_per_row,
                         column = strip % tiles.strips_per_row * tiles.width,
                         width = std::min(tiles.width, base.inner - column);
      T* to = out + (outer * base.axis + first) * base.inner + column;
      for (std::int64_t row = 0; row < rows; ++row)
        std::copy_n(to + row * base.inner, width, sums + row * width);
      for (std::int64_t k = 0; k < tiles.updates; ++k) {
        const std::int64_t from = (outer * tiles.updates + k) * base.inner + column;
        for (std::int64_t i = 0; i < width; ++i) {
          const std::int64_t row = clamped(indices[from + i], base.axis) - first;
          if (row < 0 || row >= rows) continue;
          Sum<T>& sum = sums[row * width + i];
          sum = plus(sum, static_cast<Sum<T>>(updates[from + i]));
        }
      }
      for (std::int64_t row = 0; row < rows; ++row)
        for (std::int64_t i = 0; i < width; ++i)
          to[row * base.inner + i] = static_cast<T>(sums[row * width + i]);
    }
  };
  if (tiles.count() > 0)
    pool.parallel_for(tiles.tasks(pool.threads()),
                      std::ref(work));  // a reference: std::function then allocates nothing
}

}  // namespace

AddFunction index_add_of(DType dtype) {
  return instance_of(dtype, []<class T>(T) -> AddFunction { return index_add<T>; });
}
AddFunction scatter_add_of(DType dtype) {
  return instance_of(dtype, []<class T>(T) -> AddFunction { return scatter_add<T>; });
}

std::size_t index_add_scratch_bytes(const OpKernel& kernel) {
  Carver carver(nullptr);
  carve_arrivals(carver, kernel);
  return carver.used();
}

std::size_t scatter_add_scratch_bytes(const OpKernel& kernel, int threads) {
  const Tiles tiles(kernel, threads);
  return static_cast<std::size_t>(scratch_product({tiles.bytes(), tiles.tasks(threads)}));
}

}  // namespace fluxion::cpu_backend
