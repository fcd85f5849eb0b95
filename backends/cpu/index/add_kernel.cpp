#include "backends/cpu/index/add_kernel.h"

#include <atomic>
#include <cstring>
#include <numeric>

#include "backends/cpu/index/axis_view.h"
#include "backends/cpu/runtime/scratch.h"

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

// The work of scatter_add: strips of columns that are summed side by side, each in a tile
// [axis, width] of one task's memory.
struct Strips {
  AxisView base;
  std::int64_t updates = 0;  // along the axis
  std::int64_t width = 1, per_row = 0;
  explicit Strips(const OpKernel& kernel)
      : base(view(kernel.input_types[0], axis_of(kernel))),
        updates(view(kernel.input_types[1], axis_of(kernel)).axis) {
    constexpr std::int64_t tile = 65536, narrow = 4, wide = 64;
    width = std::clamp(tile / std::max<std::int64_t>(base.axis, 1), narrow, wide);
    width = std::max<std::int64_t>(std::min(width, base.inner), 1);
    per_row = (base.inner + width - 1) / width;
  }
  std::int64_t count() const { return base.axis == 0 || updates == 0 ? 0 : base.outer * per_row; }
  std::int64_t tasks(int threads) const {
    const std::int64_t elements = count() * width * (base.axis + updates);
    return std::clamp<std::int64_t>(std::min(elements / task_elements, count()), 1, threads);
  }
  std::int64_t tile_bytes() const {
    return static_cast<std::int64_t>(
        aligned(static_cast<std::size_t>(scratch_product({base.axis, width, sizeof(double)}))));
  }
};

// out = base; out[o, indices[o, k, i], i] += updates[o, k, i].
template <class T>
void scatter_add(const OpKernel& kernel, std::byte* const* inputs, std::byte* output,
                 const ThreadPool& pool, std::byte* scratch) {
  const Strips strips(kernel);
  const AxisView& base = strips.base;
  copy_base(kernel, inputs, output);
  const std::int32_t* indices = reinterpret_cast<const std::int32_t*>(inputs[1]);
  const T* updates = reinterpret_cast<const T*>(inputs[2]);
  T* out = reinterpret_cast<T*>(output);
  std::atomic<std::int64_t> next{0};
  const auto work = [&](std::int64_t task) {
    auto* const sums = reinterpret_cast<Sum<T>*>(scratch + task * strips.tile_bytes());
    for (std::int64_t strip = next++; strip < strips.count(); strip = next++) {
      const std::int64_t outer = strip / strips.per_row,
                         column = strip % strips.per_row * strips.width,
                         width = std::min(strips.width, base.inner - column);
      T* to = out + outer * base.axis * base.inner + column;
      for (std::int64_t row = 0; row < base.axis; ++row)
        std::copy_n(to + row * base.inner, width, sums + row * width);
      for (std::int64_t k = 0; k < strips.updates; ++k) {
        const std::int64_t from = (outer * strips.updates + k) * base.inner + column;
        for (std::int64_t i = 0; i < width; ++i) {
          Sum<T>& sum = sums[clamped(indices[from + i], base.axis) * width + i];
          sum = plus(sum, static_cast<Sum<T>>(updates[from + i]));
        }
      }
      for (std::int64_t row = 0; row < base.axis; ++row)
        for (std::int64_t i = 0; i < width; ++i)
          to[row * base.inner + i] = static_cast<T>(sums[row * width + i]);
    }
  };
  if (strips.count() > 0)
    pool.parallel_for(strips.tasks(pool.threads()),
                      std::ref(work));  // a reference: std::function then allocates nothing
}

template <template <class> class Choose>
AddFunction of_dtype(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return Choose<float>::function;
    case DType::f64:
      return Choose<double>::function;
    case DType::i32:
      return Choose<std::int32_t>::function;
    case DType::u32:
      return Choose<std::uint32_t>::function;
    default:
      return nullptr;
  }
}
template <class T>
struct ByRows {
  static constexpr AddFunction function = index_add<T>;
};
template <class T>
struct ByElements {
  static constexpr AddFunction function = scatter_add<T>;
};

}  // namespace

AddFunction index_add_of(DType dtype) { return of_dtype<ByRows>(dtype); }
AddFunction scatter_add_of(DType dtype) { return of_dtype<ByElements>(dtype); }

std::size_t index_add_scratch_bytes(const OpKernel& kernel) {
  Carver carver(nullptr);
  carve_arrivals(carver, kernel);
  return carver.used();
}

std::size_t scatter_add_scratch_bytes(const OpKernel& kernel, int threads) {
  const Strips strips(kernel);
  return static_cast<std::size_t>(scratch_product({strips.tile_bytes(), strips.tasks(threads)}));
}

}  // namespace fluxion::cpu_backend
