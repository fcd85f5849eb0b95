#include "backends/cpu/index/op_kernel.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "backends/cpu/index/add_kernel.h"
#include "backends/cpu/index/axis_view.h"
#include "backends/cpu/index/instance_of.h"
#include "backends/cpu/index/op_kernel_lanes.h"
#include "backends/cpu/index/sort_kernel.h"
#include "engine/error.h"
#include "engine/graph/op_names.h"
#include "engine/graph/philox.h"

namespace fluxion::cpu_backend {

namespace {

// out[o, k, i] = x[o, indices[k], i]
void take(const OpKernel& kernel, std::byte* const* inputs, std::byte* output,
          const ThreadPool& pool, std::byte*) {
  const AxisView x = view(kernel.input_types[0], axis_of(kernel));
  const std::int64_t count = kernel.input_types[1].shape.elements();
  const std::int64_t bytes =
      x.inner * static_cast<std::int64_t>(size_of(kernel.input_types[0].dtype));
  const std::int32_t* indices = reinterpret_cast<const std::int32_t*>(inputs[1]);
  if (x.axis == 0) return;
  share(pool, x.outer * count, x.inner, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      const std::int64_t outer = row / count,
                         source = outer * x.axis + clamped(indices[row - outer * count], x.axis);
      std::memcpy(output + row * bytes, inputs[0] + source * bytes,
                  static_cast<std::size_t>(bytes));
    }
  });
}

// out[o, k, i] = x[o, indices[o, k, i], i]
template <class T>
void take_along_axis(const OpKernel& kernel, std::byte* const* inputs, std::byte* output,
                     const ThreadPool& pool, std::byte*) {
  const AxisView x = view(kernel.input_types[0], axis_of(kernel)),
                 indices = view(kernel.input_types[1], axis_of(kernel));
  const T* source = reinterpret_cast<const T*>(inputs[0]);
  const std::int32_t* index = reinterpret_cast<const std::int32_t*>(inputs[1]);
  T* out = reinterpret_cast<T*>(output);
  if (x.axis == 0) return;
  share(
      pool, indices.outer * indices.axis, indices.inner, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t row = begin; row < end; ++row) {
          const T* from = source + row / indices.axis * x.axis * x.inner;
          for (std::int64_t i = 0; i < x.inner; ++i)
            out[row * x.inner + i] = from[clamped(index[row * x.inner + i], x.axis) * x.inner + i];
        }
      });
}

// Inclusive cumulative sum.
template <class T>
void cumsum(const OpKernel& kernel, std::byte* const* inputs, std::byte* output,
            const ThreadPool& pool, std::byte*) {
  constexpr std::int64_t strip = 64;  // columns summed side by side
  const AxisView x = view(kernel.input_types[0], axis_of(kernel));
  const std::int64_t strips = (x.inner + strip - 1) / strip;
  const T* source = reinterpret_cast<const T*>(inputs[0]);
  T* out = reinterpret_cast<T*>(output);
  share(pool, x.outer * strips, x.axis * std::min(x.inner, strip),
        [&](std::int64_t begin, std::int64_t end) {
          for (std::int64_t unit = begin; unit < end; ++unit) {
            const std::int64_t first = unit % strips * strip,
                               width = std::min(strip, x.inner - first);
            Sum<T> sums[strip] = {};
            for (std::int64_t k = 0; k < x.axis; ++k) {
              const std::int64_t at = (unit / strips * x.axis + k) * x.inner + first;
              for (std::int64_t i = 0; i < width; ++i) {
                sums[i] = plus(sums[i], static_cast<Sum<T>>(source[at + i]));
                out[at + i] = static_cast<T>(sums[i]);
              }
            }
          }
        });
}

// The first maximum; the first NaN beats every number.
template <class T>
void argmax(const OpKernel& kernel, std::byte* const* inputs, std::byte* output,
            const ThreadPool& pool, std::byte*) {
  const AxisView x = view(kernel.input_types[0], axis_of(kernel));
  const T* source = reinterpret_cast<const T*>(inputs[0]);
  std::int32_t* out = reinterpret_cast<std::int32_t*>(output);
  share(pool, x.outer * x.inner, x.axis, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t point = begin; point < end; ++point) {
      const T* line = source + point / x.inner * x.axis * x.inner + point % x.inner;
      std::int64_t best = 0;
      for (std::int64_t k = 1; k < x.axis; ++k) {
        const T value = line[k * x.inner], leader = line[best * x.inner];
        if (leader != leader) break;
        if (value > leader || value != value) best = k;
      }
      out[point] = static_cast<std::int32_t>(best);
    }
  });
}

void random_bits(const OpKernel& kernel, std::byte* const* inputs, std::byte* output,
                 const ThreadPool& pool, std::byte*) {
  constexpr std::int64_t group = 4 * philox_width;
  const std::int64_t count = kernel.output_types[0].shape.elements();
  const std::uint32_t* key = reinterpret_cast<const std::uint32_t*>(inputs[0]);
  const std::uint32_t stream = *reinterpret_cast<const std::uint32_t*>(inputs[1]);
  const std::uint32_t domain =
      static_cast<std::uint32_t>(std::get<RandomAttributes>(kernel.attributes).domain);
  std::uint32_t* out = reinterpret_cast<std::uint32_t*>(output);
  share(pool, (count + group - 1) / group, group, [&](std::int64_t begin, std::int64_t end) {
    const std::int64_t whole = std::min(end, count / group);
    if (begin < whole) random_words(begin, whole, stream, domain, key[0], key[1], out);
    for (std::int64_t i = std::max(begin, whole) * group; i < std::min(count, end * group);
         i += 4) {
      const auto words =
          random_block(static_cast<std::uint64_t>(i / 4), stream, domain, {key[0], key[1]});
      std::copy_n(words.begin(), std::min<std::int64_t>(4, count - i), out + i);
    }
  });
}

// A copy of x. If no copy is needed, the planner has its readers read x and makes no kernel.
void after(const OpKernel& kernel, std::byte* const* inputs, std::byte* output,
           const ThreadPool& pool, std::byte*) {
  share(pool, static_cast<std::int64_t>(kernel.input_types[0].bytes()), 1,
        [&](std::int64_t begin, std::int64_t end) {
          std::memcpy(output + begin, inputs[0] + begin, static_cast<std::size_t>(end - begin));
        });
}

}  // namespace

OpRunner::Function OpRunner::find(const OpKernel& kernel) {
  const DType dtype = kernel.input_types.empty() ? DType::f32 : kernel.input_types[0].dtype;
  Function function = nullptr;
  switch (kernel.op) {
    case Op::take:
      function = take;
      break;
    case Op::take_along_axis:
      // Elements are only moved: any type of the right size works.
      switch (size_of(dtype)) {
        case 1:
          function = take_along_axis<std::uint8_t>;
          break;
        case 2:
          function = take_along_axis<std::uint16_t>;
          break;
        case 4:
          function = take_along_axis<std::uint32_t>;
          break;
        default:
          function = take_along_axis<std::uint64_t>;
          break;
      }
      break;
    case Op::index_add:
      function = index_add_of(dtype);
      break;
    case Op::scatter_add:
      function = scatter_add_of(dtype);
      break;
    case Op::cumsum:
      function = instance_of(dtype, []<class T>(T) -> Function { return cumsum<T>; });
      break;
    case Op::argmax:
      if (dtype == DType::boolean || dtype == DType::u8)
        function = argmax<std::uint8_t>;
      else
        function = instance_of(dtype, []<class T>(T) -> Function { return argmax<T>; });
      break;
    case Op::argsort:
      function = argsort_of(dtype);
      break;
    case Op::random_bits:
      function = random_bits;
      break;
    case Op::after:
      function = after;
      break;
    default:
      throw Error("cpu: " + std::string(to_string(kernel.op)) +
                  " has no kernel of its own; the planner lowers it to tapes or contractions");
  }
  if (!function)
    throw DTypeError("cpu: " + std::string(to_string(kernel.op)) + " can't compute in " +
                     std::string(to_string(dtype)));
  return function;
}

OpRunner::OpRunner(OpKernel kernel) : kernel_(std::move(kernel)), function_(find(kernel_)) {}

void OpRunner::run(const CallMemory& memory, const ThreadPool& pool, std::byte* scratch) const {
  std::byte* inputs[3] = {};
  for (std::size_t i = 0; i < kernel_.inputs.size() && i < 3; ++i)
    inputs[i] = memory.buffers[static_cast<std::size_t>(kernel_.inputs[i])];
  function_(kernel_, inputs, memory.buffers[static_cast<std::size_t>(kernel_.outputs[0])], pool,
            scratch);
}

std::size_t OpRunner::scratch_bytes(int threads) const {
  switch (kernel_.op) {
    case Op::argsort:
      return argsort_scratch_bytes(kernel_, threads);
    case Op::index_add:
      return index_add_scratch_bytes(kernel_);
    case Op::scatter_add:
      return scatter_add_scratch_bytes(kernel_, threads);
    default:
      return 0;
  }
}

}  // namespace fluxion::cpu_backend
