// Convolutions - forward, gradient in the image, gradient in the weight - against the plain matrix
// product of the same size and against oneDNN. Operations are those that the definition needs,
// multiplications with zeros between pixels not counted.
#include <cstdint>
#include <memory>

#include "autograd/transforms.h"
#include "backends/cpu/cpu.h"
#include "bench/race.h"
#include "engine/compile.h"
#include "engine/graph/ops.h"
#include "models/benchmark/bound_program.h"
#include "models/layers/image.h"
#if FLUXION_BENCH_ONEDNN
#include <omp.h>

#include <oneapi/dnnl/dnnl.hpp>
#endif

namespace fluxion::bench {
namespace {

enum class Part { forward, image, weight };

// A square kernel with `same` padding over a square image.
struct Convolution {
  std::int64_t batch, size, in, out, kernel = 3, stride = 1;

  std::int64_t padding() const { return kernel / 2; }
  std::int64_t result() const { return (size + 2 * padding() - kernel) / stride + 1; }
  std::int64_t rows() const { return batch * result() * result(); }
  double flops() const { return 2.0 * static_cast<double>(rows() * kernel * kernel * in * out); }
  Shape x() const { return {batch, size, size, in}; }
  Shape w() const { return {kernel, kernel, in, out}; }
  Shape y() const { return {batch, result(), result(), out}; }
  std::string name(Part part) const {
    const char* parts[] = {"", ", dx", ", dw"};
    return std::to_string(batch) + " x " + std::to_string(size) + "^2, " + std::to_string(in) +
           " to " + std::to_string(out) + ", " + std::to_string(kernel) + "^2" +
           (stride > 1 ? " stride " + std::to_string(stride) : "") + parts[static_cast<int>(part)];
  }
};

std::function<void()> bound(const Program& program, const Device& device) {
  const auto made = std::make_shared<BoundProgram>(program, device);
  for (std::size_t k = 0; k < program.inputs.size(); ++k) {
    const std::span<float> values = made->input(k);
    for (std::size_t i = 0; i < values.size(); ++i)
      values[i] = static_cast<float>(i * 2654435761u % 1000) / 1000.0f - 0.5f;
  }
  return [made] { made->run(); };
}

std::function<void()> prepare_fluxion(const Convolution& c, Part part, int threads) {
  const Device device = cpu({.threads = threads});
  const ConvolutionOptions options{.stride = {c.stride, c.stride},
                                   .low = {c.padding(), c.padding()},
                                   .high = {c.padding(), c.padding()}};
  const Tensor x = zeros(c.x(), DType::f32, device), w = zeros(c.w(), DType::f32, device),
               u = zeros(c.y(), DType::f32, device);
  if (part == Part::forward)
    return bound(compile([=](const Tensor& image, const Tensor& weight) {
                   return conv2d(image, weight, options);
                 }).program(x, w),
                 device);
  if (part == Part::image) {
    const auto f = [=](const Tensor& cotangent, const Tensor& weight) {
      return std::get<0>(vjp([&](const Tensor& image) { return conv2d(image, weight, options); }, x)
                             .second(cotangent));
    };
    return bound(compile(f).program(u, w), device);
  }
  const auto f = [=](const Tensor& image, const Tensor& cotangent) {
    return std::get<0>(vjp([&](const Tensor& weight) { return conv2d(image, weight, options); }, w)
                           .second(cotangent));
  };
  return bound(compile(f).program(x, u), device);
}

std::function<void()> prepare_product(const Convolution& c, Part part, int threads) {
  const Device device = cpu({.threads = threads});
  const std::int64_t positions = c.kernel * c.kernel,
                     rows = part == Part::image ? c.batch * c.size * c.size : c.rows();
  const auto matrix = [&](std::int64_t m, std::int64_t n) {
    return zeros({m, n}, DType::f32, device);
  };
  const auto product = [](const Tensor& a, const Tensor& b) { return matmul(a, b); };
  const auto turned = [](const Tensor& a, const Tensor& b) {
    return matmul(swap_axes(a, 0, 1), b);
  };
  if (part == Part::forward)
    return bound(
        compile(product).program(matrix(rows, positions * c.in), matrix(positions * c.in, c.out)),
        device);
  // Strides skip products: as many as the forward pass has.
  if (part == Part::image) {
    const std::int64_t seen = positions * c.out / (c.stride * c.stride);
    return bound(compile(product).program(matrix(rows, seen), matrix(seen, c.in)), device);
  }
  return bound(compile(turned).program(matrix(rows, positions * c.in), matrix(rows, c.out)),
               device);
}

#if FLUXION_BENCH_ONEDNN
// Images as they are; the weight in the layout that the library likes best, which costs it nothing
// here.
std::function<void()> prepare_onednn(const Convolution& c, Part part, int threads) {
  omp_set_num_threads(threads);
  using namespace dnnl;
  const engine cpu_engine(engine::kind::cpu, 0);
  const auto image = [](const Shape& s) {
    return memory::desc({s[0], s[3], s[1], s[2]}, memory::data_type::f32, memory::format_tag::nhwc);
  };
  const memory::desc x = image(c.x()), y = image(c.y());
  const memory::desc w({c.out, c.in, c.kernel, c.kernel}, memory::data_type::f32,
                       memory::format_tag::any);
  const memory::dims stride{c.stride, c.stride}, low{c.padding(), c.padding()};
  const std::int64_t last = (c.result() - 1) * c.stride + c.kernel - c.size - c.padding();
  const memory::dims high{last, last};
  const auto algorithm = dnnl::algorithm::convolution_direct;
  const convolution_forward::primitive_desc forward(
      {prop_kind::forward_training, algorithm, x, w, y, stride, low, high}, cpu_engine);
  primitive work;
  memory::desc weights;
  std::vector<int> names;
  if (part == Part::forward) {
    weights = forward.weights_desc(), work = convolution_forward(forward);
    names = {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST};
  } else if (part == Part::image) {
    const convolution_backward_data::primitive_desc back({algorithm, x, w, y, stride, low, high},
                                                         cpu_engine, forward);
    weights = back.weights_desc(), work = convolution_backward_data(back);
    names = {DNNL_ARG_DIFF_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DIFF_DST};
  } else {
    const convolution_backward_weights::primitive_desc back({algorithm, x, w, y, stride, low, high},
                                                            cpu_engine, forward);
    weights = back.diff_weights_desc(), work = convolution_backward_weights(back);
    names = {DNNL_ARG_SRC, DNNL_ARG_DIFF_WEIGHTS, DNNL_ARG_DIFF_DST};
  }
  std::unordered_map<int, memory> operands;
  const memory::desc types[] = {x, weights, y};
  for (std::size_t k = 0; k < 3; ++k) {
    memory made(types[k], cpu_engine);
    auto* values = static_cast<float*>(made.get_data_handle());
    for (std::size_t i = 0; i < types[k].get_size() / sizeof(float); ++i)
      values[i] = static_cast<float>(i * 2654435761u % 1000) / 1000.0f - 0.5f;
    operands.emplace(names[k], made);
  }
  stream order(cpu_engine);
  return [work, order, operands]() mutable {
    work.execute(order, operands);
    order.wait();
  };
}
#endif

const std::vector<Convolution>& shapes() {
  static const std::vector<Convolution> list = {
      {16, 32, 64, 64},    {16, 16, 128, 128},    {4, 8, 256, 256},    {16, 32, 64, 128, 3, 2},
      {16, 32, 64, 64, 1}, {16, 32, 3, 64},       {16, 32, 64, 3},     {1, 32, 64, 1},
      {1, 28, 1, 32},      {64, 28, 1, 16, 5, 2}, {16, 32, 64, 64, 5},
  };
  return list;
}

}  // namespace

std::vector<Event> convolutions() {
  std::vector<Event> events;
  for (const Convolution& c : shapes())
    for (const Part part : {Part::forward, Part::image, Part::weight})
      for (const int threads : {1, 2}) {
        Event event{"convolutions", c.name(part), threads, c.flops(), {}};
        event.contenders.push_back(
            {"fluxion", [c, part, threads] { return prepare_fluxion(c, part, threads); }});
        event.contenders.push_back(
            {"product", [c, part, threads] { return prepare_product(c, part, threads); }});
#if FLUXION_BENCH_ONEDNN
        event.contenders.push_back(
            {"onednn", [c, part, threads] { return prepare_onednn(c, part, threads); }});
#endif
        events.push_back(std::move(event));
      }
  return events;
}

}  // namespace fluxion::bench
