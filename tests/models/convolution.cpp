// Convolutions, pooling and norms of images against plain loops, and what the planner makes of
// them.
#include <algorithm>
#include <random>

#include "autograd/transforms.h"
#include "backends/cpu/cpu.h"
#include "engine/graph/ops.h"
#include "models/layers/image.h"
#include "tests/catch.h"
#include "tests/compiled_program.h"
#include "tests/op_examples.h"

using namespace fluxion;
using namespace fluxion::testing;

namespace {

struct Problem {
  std::int64_t batch, height, width, in, out, kernel_height,
      kernel_width;  // in and out: of a group
  ConvolutionOptions options;

  Shape x() const { return {batch, height, width, in * options.groups}; }
  Shape weight() const { return {kernel_height, kernel_width, in, out * options.groups}; }
  std::int64_t size(std::size_t k) const {
    const std::int64_t whole = (k == 0 ? height : width) + options.low[k] + options.high[k];
    return (whole - options.dilation[k] * ((k == 0 ? kernel_height : kernel_width) - 1) - 1) /
               options.stride[k] +
           1;
  }
};

std::ostream& operator<<(std::ostream& to, const Problem& p) {
  const auto& o = p.options;
  return to << to_string(p.x()) << " with " << to_string(p.weight()) << ", stride " << o.stride[0]
            << " " << o.stride[1] << ", dilation " << o.dilation[0] << " " << o.dilation[1]
            << ", padding " << o.low[0] << " " << o.high[0] << " " << o.low[1] << " " << o.high[1]
            << ", groups " << o.groups;
}

// The definition, seven loops.
HostValue convolved(const Problem& p, const HostValue& x, const HostValue& w) {
  const ConvolutionOptions& o = p.options;
  const std::int64_t rows = p.size(0), columns = p.size(1), channels = p.in * o.groups,
                     outputs = p.out * o.groups;
  HostValue y{{p.batch, rows, columns, outputs}, DType::f64, {}};
  for (std::int64_t n = 0; n < p.batch; ++n)
    for (std::int64_t i = 0; i < rows; ++i)
      for (std::int64_t j = 0; j < columns; ++j)
        for (std::int64_t c = 0; c < outputs; ++c) {
          double total = 0;
          for (std::int64_t a = 0; a < p.kernel_height; ++a)
            for (std::int64_t b = 0; b < p.kernel_width; ++b)
              for (std::int64_t k = 0; k < p.in; ++k) {
                const std::int64_t row = i * o.stride[0] + a * o.dilation[0] - o.low[0],
                                   column = j * o.stride[1] + b * o.dilation[1] - o.low[1];
                if (row < 0 || row >= p.height || column < 0 || column >= p.width) continue;
                total += x.values[static_cast<std::size_t>(
                             ((n * p.height + row) * p.width + column) * channels +
                             c / p.out * p.in + k)] *
                         w.values[static_cast<std::size_t>(
                             ((a * p.kernel_width + b) * p.in + k) * outputs + c)];
              }
          y.values.push_back(total);
        }
  return y;
}

Problem random_problem(std::mt19937& random) {
  const auto between = [&](int low, int high) {
    return std::uniform_int_distribution<std::int64_t>(low, high)(random);
  };
  while (true) {
    Problem p{between(1, 3),  between(1, 19), between(1, 19), between(1, 5),
              between(1, 20), between(1, 4),  between(1, 4),  {}};
    p.options = {.stride = {between(1, 3), between(1, 3)},
                 .dilation = {between(1, 2), between(1, 3)},
                 .low = {between(-1, 3), between(-1, 3)},
                 .high = {between(-1, 3), between(-1, 3)},
                 .groups = between(1, 3)};
    const auto room = [&](std::size_t k) {
      return (k == 0 ? p.height : p.width) + p.options.low[k] + p.options.high[k] -
             p.options.dilation[k] * ((k == 0 ? p.kernel_height : p.kernel_width) - 1) - 1;
    };
    if (room(0) >= 0 && room(1) >= 0) return p;
  }
}

template <class Kind>
std::size_t count(const Program& program) {
  return static_cast<std::size_t>(
      std::count_if(program.kernels.begin(), program.kernels.end(),
                    [](const Kernel& kernel) { return std::holds_alternative<Kind>(kernel); }));
}
std::int64_t largest_temporary(const Program& program) {
  std::int64_t elements = 0;
  for (const BufferSlot& buffer : program.buffers)
    if (buffer.kind == BufferKind::temporary)
      elements = std::max(elements, buffer.type.shape.elements());
  return elements;
}

double inner(const Tensor& a, const Tensor& b) { return sum(a * b).item<double>(); }

}  // namespace

TEST_CASE("conv2d equals seven loops, in value and in both gradients", "[models][convolution]") {
  const Device device = cpu({.threads = 2});
  std::mt19937 random(7);
  std::vector<Problem> problems;
  for (int i = 0; i < 60; ++i) problems.push_back(random_problem(random));
  problems.push_back(
      {2,
       9,
       8,
       1,
       1,
       3,
       2,
       {.stride = {2, 1}, .low = {1, 1}, .high = {1, 0}, .groups = 5}});  // each channel for itself
  problems.push_back({2, 32, 32, 7, 33, 3, 3, {.low = {1, 1}, .high = {1, 1}}});  // long rows
  problems.push_back({2, 33, 29, 64, 3, 3, 3, {.stride = {2, 2}, .low = {1, 1}, .high = {1, 1}}});
  problems.push_back({1, 41, 37, 1, 1, 5, 5, {.low = {2, 2}, .high = {2, 2}}});
  problems.push_back({1, 17, 18, 200, 5, 3, 3, {.low = {1, 1}, .high = {1, 1}}});
  for (const Problem& p : problems) {
    INFO(p);
    const HostValue x = random_value(p.x(), -1, 1, 1), w = random_value(p.weight(), -1, 1, 2),
                    expected = convolved(p, x, w);
    for (const DType dtype : {DType::f32, DType::f64}) {
      const Tensor image = to_tensor(x, device, dtype), weight = to_tensor(w, device, dtype);
      const double tolerance = dtype == DType::f32 ? 1e-5 : 1e-13;
      CHECK(difference(conv2d(image, weight, p.options), to_tensor(expected, device, dtype),
                       tolerance, 20 * tolerance) == "");
    }
    // <u, J v> = <J' u, v> for directions of either operand, J being the convolution itself.
    const HostValue u = random_value(expected.shape, -1, 1, 3), dx = random_value(p.x(), -1, 1, 4),
                    dw = random_value(p.weight(), -1, 1, 5);
    const auto on = [&](const HostValue& value) { return to_tensor(value, device); };
    const auto loss = [&](const Tensor& image, const Tensor& weight) {
      return sum(conv2d(image, weight, p.options) * on(u));
    };
    const Tensor image_gradient =
        grad([&](const Tensor& image) { return loss(image, on(w)); })(on(x));
    const Tensor weight_gradient =
        grad([&](const Tensor& weight) { return loss(on(x), weight); })(on(w));
    CHECK(inner(image_gradient, on(dx)) ==
          Approx(inner(on(u), on(convolved(p, dx, w)))).epsilon(1e-11).margin(1e-11));
    CHECK(inner(weight_gradient, on(dw)) ==
          Approx(inner(on(u), on(convolved(p, x, dw)))).epsilon(1e-11).margin(1e-11));
  }
}

TEST_CASE("conv2d_transpose is the adjoint of conv2d", "[models][convolution]") {
  const Device device = cpu({.threads = 1});
  std::mt19937 random(11);
  for (int i = 0; i < 40; ++i) {
    const Problem p = random_problem(random);
    INFO(p);
    const std::int64_t groups = p.options.groups;
    const Tensor x = to_tensor(random_value(p.x(), -1, 1, 1), device),
                 w = to_tensor(random_value(p.weight(), -1, 1, 2), device);
    const Tensor y = conv2d(x, w, p.options),
                 u = to_tensor(random_value(y.shape(), -1, 1, 3), device);
    // [.., in, groups x out] -> [.., groups x out, in].
    const Tensor turned = swap_axes(w, 2, 3);
    // Rows and columns that no stride reaches.
    Pair missed;
    for (std::size_t k = 0; k < 2; ++k) {
      const std::int64_t whole =
          (k == 0 ? p.height : p.width) + p.options.low[k] + p.options.high[k];
      missed[k] =
          (whole - p.options.dilation[k] * ((k == 0 ? p.kernel_height : p.kernel_width) - 1) - 1) %
          p.options.stride[k];
    }
    const Tensor back = conv2d_transpose(u, turned, p.options, missed);
    REQUIRE(back.shape() == x.shape());
    CHECK(turned.size(2) == groups * p.out);
    CHECK(inner(y, u) == Approx(inner(x, back)).epsilon(1e-11).margin(1e-11));
  }
}

TEST_CASE("a convolution is one contraction and at most a copy of the padded image",
          "[models][convolution][plan]") {
  const Device device = cpu({.threads = 1});
  struct Expected {
    Problem problem;
    // Of the forward pass, of the image's gradient, of the weight's. A gradient through strides has
    // a product a phase, each with its part of the weight and its own border, and a copy or two
    // that interleave the results.
    std::size_t copies, image_copies, weight_copies, image_products = 1;
  };
  const Expected all[] = {
      {{2, 8, 9, 4, 6, 3, 3, {.low = {1, 1}, .high = {1, 1}}},
       1,
       2,
       1},  // flipped weight, padded cotangent
      {{2, 8, 9, 4, 6, 3, 3, {}}, 0, 2, 0},
      {{2, 8, 9, 4, 6, 1, 1, {}}, 0, 0, 0},  // 1 x 1: nothing is ever copied
      {{2, 8, 9, 4, 6, 3, 3, {.stride = {2, 2}, .low = {1, 1}, .high = {1, 1}}},
       1,
       4 + 4 + 2,
       1,
       4},
      {{2, 8, 9, 4, 6, 3, 3, {.dilation = {2, 2}, .low = {2, 2}, .high = {2, 2}}}, 1, 2, 1},
      {{2, 8, 9, 4, 6, 3, 3, {.stride = {2, 1}, .low = {1, 1}, .high = {1, 1}, .groups = 2}},
       1,
       2 + 2 + 1,
       1,
       2},
  };
  for (const Expected& each : all) {
    const Problem& p = each.problem;
    INFO(p);
    const Tensor x = to_tensor(random_value(p.x(), -1, 1, 1), device),
                 w = to_tensor(random_value(p.weight(), -1, 1, 2), device);
    const auto forward = [&](const Tensor& image, const Tensor& weight) {
      return conv2d(image, weight, p.options);
    };
    const Tensor u = ones_like(forward(x, w));
    eval(u);
    const auto image_gradient = [&](const Tensor& image, const Tensor& weight,
                                    const Tensor& cotangent) {
      return std::get<0>(
          vjp([&](const Tensor& y) { return forward(y, weight); }, image).second(cotangent));
    };
    const auto weight_gradient = [&](const Tensor& image, const Tensor& weight,
                                     const Tensor& cotangent) {
      return std::get<0>(
          vjp([&](const Tensor& y) { return forward(image, y); }, weight).second(cotangent));
    };
    const Program programs[] = {program_of(forward, x, w), program_of(image_gradient, x, w, u),
                                program_of(weight_gradient, x, w, u)};
    const std::size_t copies[] = {each.copies, each.image_copies, each.weight_copies};
    for (std::size_t i = 0; i < 3; ++i) {
      INFO(to_string(programs[i]));
      CHECK(count<ContractKernel>(programs[i]) <= (i == 1 ? each.image_products : 1));
      CHECK(count<TapeKernel>(programs[i]) <= copies[i]);
      CHECK(count<OpKernel>(programs[i]) == 0);
      // No matrix of windows: it would have more elements than the image with its zeros and its
      // border.
      const auto side = [&](std::size_t k) {
        return (k == 0 ? p.height : p.width) + p.options.stride[k] + 2 * p.options.low[k] + 4;
      };
      CHECK(largest_temporary(programs[i]) <=
            std::max(p.batch * side(0) * side(1) * std::max(p.in, p.out) * p.options.groups,
                     p.weight().elements()));
    }
  }
}

TEST_CASE("a convolution's bias and activation join its kernel, and so does the tangent",
          "[models][convolution][plan]") {
  const Device device = cpu({.threads = 1});
  const Tensor x = to_tensor(random_value({2, 8, 8, 4}, -1, 1, 1), device),
               w = to_tensor(random_value({3, 3, 4, 6}, -1, 1, 2), device);
  const auto layer = [](const Tensor& image, const Tensor& weight, const Tensor& bias) {
    return silu(conv2d(image, weight) + bias);
  };
  const Tensor b = to_tensor(random_value({6}, -1, 1, 3), device);
  const Program program = program_of(layer, x, w, b);
  INFO(to_string(program));
  CHECK(program.kernels.size() == 1);
  const auto with_tangent = [&](const Tensor& image, const Tensor& tangent, const Tensor& weight,
                                const Tensor& bias) {
    return jvp([&](const Tensor& y) { return layer(y, weight, bias); }, std::tuple(image),
               std::tuple(tangent));
  };
  const Program dual = program_of(with_tangent, x, x, w, b);
  INFO(to_string(dual));
  CHECK(dual.kernels.size() == 1);
}

TEST_CASE("pooling and enlarging, forwards and backwards, add views",
          "[models][convolution][plan]") {
  const Device device = cpu({.threads = 1});
  const Tensor x = to_tensor(random_value({2, 8, 8, 12}, -1, 1, 1), device),
               u = to_tensor(random_value({2, 4, 4, 12}, -1, 1, 2), device);
  const auto pool = [](const Tensor& image) { return avg_pool2d(image, {2, 2}, {2, 2}); };
  const auto enlarge = [](const Tensor& image) { return upsample_nearest2d(image, {2, 2}); };
  const auto back = [](auto f, const Tensor& at) {
    return [f, at](const Tensor& cotangent) { return std::get<0>(vjp(f, at).second(cotangent)); };
  };
  for (const Program& program : {program_of(pool, x), program_of(enlarge, u),
                                 program_of(back(pool, x), u), program_of(back(enlarge, u), x)}) {
    INFO(to_string(program));
    REQUIRE(program.kernels.size() == 1);
    CHECK(std::get<TapeKernel>(program.kernels[0]).tape.reduced_axes == 0);
  }
}

TEST_CASE("what does not fit is refused", "[models][convolution]") {
  const Device device = cpu({.threads = 1});
  const Tensor x = zeros({1, 4, 4, 3}, DType::f32, device);
  CHECK_THROWS_AS(conv2d(x, zeros({3, 3, 2, 5}, DType::f32, device)), ShapeError);
  CHECK_THROWS_AS(conv2d(x, zeros({5, 5, 3, 5}, DType::f32, device)), ShapeError);
  CHECK_THROWS_AS(conv2d(x, zeros({3, 3, 3, 5}, DType::f32, device), {.stride = {0, 1}}),
                  ShapeError);
  CHECK_THROWS_AS(conv2d(x, zeros({3, 3, 3, 5}, DType::f64, device)), DTypeError);
  CHECK_THROWS_AS(conv2d_transpose(x, zeros({3, 3, 2, 5}, DType::f32, device)), ShapeError);
  CHECK_THROWS_WITH(avg_pool2d(x, {5, 1}, {1, 1}), has_text("avg_pool2d") && has_text("5 x 1"));
  CHECK_THROWS_WITH(conv2d(x, zeros({3, 3, 3, 5}, DType::f32, device), {.groups = 2}),
                    has_text("conv2d") && has_text("convolution.cpp"));
}

TEST_CASE("pooling, enlarging and group norm equal plain loops", "[models][convolution]") {
  const Device device = cpu({.threads = 2});
  const std::int64_t n = 2, h = 7, w = 9, c = 6;
  const HostValue host = random_value({n, h, w, c}, -1, 1, 1);
  const Tensor x = to_tensor(host, device);
  const auto at = [&](std::int64_t b, std::int64_t i, std::int64_t j, std::int64_t k) {
    return host.values[static_cast<std::size_t>(((b * h + i) * w + j) * c + k)];
  };
  struct Pool {
    Pair window, stride;
  };
  for (const auto& [window, stride] :
       {Pool{{2, 2}, {2, 2}}, Pool{{3, 2}, {1, 2}}, Pool{{1, 1}, {3, 2}}, Pool{{7, 9}, {1, 1}},
        Pool{{2, 3}, {3, 4}}}) {
    HostValue expected{
        {n, (h - window[0]) / stride[0] + 1, (w - window[1]) / stride[1] + 1, c}, DType::f64, {}};
    for (std::int64_t b = 0; b < n; ++b)
      for (std::int64_t i = 0; i < expected.shape[1]; ++i)
        for (std::int64_t j = 0; j < expected.shape[2]; ++j)
          for (std::int64_t k = 0; k < c; ++k) {
            double total = 0;
            for (std::int64_t p = 0; p < window[0]; ++p)
              for (std::int64_t q = 0; q < window[1]; ++q)
                total += at(b, i * stride[0] + p, j * stride[1] + q, k);
            expected.values.push_back(total / static_cast<double>(window[0] * window[1]));
          }
    CHECK(difference(avg_pool2d(x, window, stride), to_tensor(expected, device), 1e-13, 1e-14) ==
          "");
  }

  HostValue enlarged{{n, 2 * h, 3 * w, c}, DType::f64, {}};
  for (std::int64_t b = 0; b < n; ++b)
    for (std::int64_t i = 0; i < 2 * h; ++i)
      for (std::int64_t j = 0; j < 3 * w; ++j)
        for (std::int64_t k = 0; k < c; ++k) enlarged.values.push_back(at(b, i / 2, j / 3, k));
  CHECK(difference(upsample_nearest2d(x, {2, 3}), to_tensor(enlarged, device), 0, 0) == "");

  for (const std::int64_t groups : {1, 2, 3, 6}) {
    HostValue expected = host;
    const std::int64_t size = c / groups;
    for (std::int64_t b = 0; b < n; ++b)
      for (std::int64_t g = 0; g < groups; ++g) {
        double total = 0, squares = 0;
        const auto each = [&](auto f) {
          for (std::int64_t i = 0; i < h; ++i)
            for (std::int64_t j = 0; j < w; ++j)
              for (std::int64_t k = g * size; k < (g + 1) * size; ++k) f(i, j, k);
        };
        each([&](auto i, auto j, auto k) { total += at(b, i, j, k); });
        const double mean = total / static_cast<double>(h * w * size);
        each([&](auto i, auto j, auto k) {
          squares += (at(b, i, j, k) - mean) * (at(b, i, j, k) - mean);
        });
        const double scale = 1 / std::sqrt(squares / static_cast<double>(h * w * size) + 1e-3);
        each([&](auto i, auto j, auto k) {
          expected.values[static_cast<std::size_t>(((b * h + i) * w + j) * c + k)] =
              (at(b, i, j, k) - mean) * scale;
        });
      }
    CHECK(difference(group_norm(x, groups, 1e-3), to_tensor(expected, device), 1e-12, 1e-12) == "");
  }
}
