// Mixed precision: values, derivatives, what the program holds in 16 bits, and how it is asked for.
//
// Rounding to p significant bits changes a number by at most u = 2^-p of itself: p is 8 for bf16
// and 11 for f16. A product of two rounded factors is off by 2 u + u^2.
#include "models/layers/precision.h"

#include <algorithm>
#include <cmath>

#include "autograd/transforms.h"
#include "autograd/vmap.h"
#include "backends/cpu/cpu.h"
#include "backends/reference/reference.h"
#include "models/benchmark/benchmark.h"
#include "models/layers/image.h"
#include "models/layers/layers.h"
#include "tests/catch.h"
#include "tests/compiled_program.h"
#include "tests/error_message.h"
#include "tests/op_examples.h"

using namespace fluxion;
using namespace fluxion::testing;

namespace {

double half_unit(DType dtype) {
  return dtype == DType::bf16 ? 0x1p-8 : dtype == DType::f16 ? 0x1p-11 : 0x1p-24;
}

Tensor nearest_in(const Tensor& x, DType dtype) {
  Tensor result = convert(convert(x, dtype), DType::f32);
  eval(result);
  return result;
}

Precision precision_of(DType operands, DType tangents = DType::f32, DType cotangents = DType::f32) {
  return {.operands = operands, .tangents = tangents, .cotangents = cotangents};
}

// A product with a weight in a precision: of x and w, without a bias.
struct WeightProduct {
  const char* label;
  Shape x, w;
  std::function<Tensor(const Precision&, const Tensor&, const Tensor&)> f;
};

std::vector<WeightProduct> weight_products() {
  const auto line = [](const Precision& precision, const Tensor& x, const Tensor& w) {
    return linear(x, w, zeros({w.size(0)}, DType::f32, w.device()), precision);
  };
  const auto convolution = [](auto f) {
    return [f](const Precision& precision, const Tensor& x, const Tensor& w) {
      return product(precision, x, w, f);
    };
  };
  return {{"one number", {1, 1}, {1, 1}, line},
          {"a linear map", {7, 13}, {5, 13}, line},
          {"of three axes", {3, 11, 33}, {17, 33}, line},
          {"of no rows", {0, 5}, {3, 5}, line},
          {"a convolution",
           {2, 5, 7, 3},
           {3, 3, 3, 9},
           convolution([](const Tensor& x, const Tensor& w) {
             return conv2d(x, w, {.stride = {2, 1}, .low = {1, 1}, .high = {1, 0}});
           })},
          {"a transposed convolution",
           {1, 3, 4, 5},
           {2, 3, 5, 2},
           convolution([](const Tensor& x, const Tensor& w) {
             return conv2d_transpose(x, w, {.stride = {2, 2}});
           })}};
}

DitConfig precision_dit() {
  return {.image_size = 8,
          .channels = 1,
          .patch_size = 2,
          .hidden_size = 24,
          .depth = 2,
          .num_heads = 3,
          .num_classes = 3,
          .frequency_embedding_size = 32};
}

NetworkConfig precision_unet() {
  return UnetConfig{.image_size = {8, 8},
                    .channels = 1,
                    .base = 8,
                    .channel_mult = {1, 2},
                    .num_res_blocks = 1,
                    .attention_ds = {2},
                    .norm_groups = 4,
                    .num_heads = 2,
                    .num_classes = 3};
}

// Parameters none of which is zero, so that every layer takes part.
Parameters lively(const NetworkConfig& config, const Device& device) {
  Parameters parameters = initialise(config, random_key(5, device));
  std::uint32_t stream = 0;
  for (auto& [name, value] : parameters) {
    value = value + 0.1 * normal(fold_in(random_key(6, device), stream++), value.shape());
    eval(value);
  }
  return parameters;
}

struct NetworkCase {
  NetworkConfig config;
  Parameters parameters;
  Tensor z, t, r, labels;

  NetworkCase(const NetworkConfig& config, const Device& device)
      : config(config), parameters(lively(config, device)) {
    z = random_tensor({3, 8, 8, 1}, device, 11);
    t = Tensor::from(std::vector<float>{0.9f, 0.5f, 0.3f}, {3}, device);
    r = Tensor::from(std::vector<float>{0.1f, 0.2f, 0.3f}, {3}, device);
    labels = Tensor::from(std::vector<std::int32_t>{0, 2, 3}, {3}, device);
  }
  auto velocity(const Precision& precision) const {
    return
        [this, network = with_precision(config, precision)](const Parameters& p, const Tensor& x) {
          return apply(network, p, x, {.t = t, .r = r}, labels);
        };
  }
};

double relative_distance(const Tensor& got, const Tensor& expected) {
  return std::sqrt(sum(square(got - expected)).item<float>() / sum(square(expected)).item<float>());
}
double inner_product(const Tensor& a, const Tensor& b) { return sum(a * b).item<float>(); }

// The dtypes of the products' operands that a program has.
std::vector<std::pair<DType, DType>> operand_dtypes(const Program& program) {
  std::vector<std::pair<DType, DType>> result;
  for (const Kernel& kernel : program.kernels)
    if (const auto* contract = std::get_if<ContractKernel>(&kernel))
      result.emplace_back(contract->lhs, contract->rhs);
  return result;
}

}  // namespace

TEST_CASE("a product in 16 bits is that of the rounded factors, and near that of the factors",
          "[models][precision]") {
  for (const Device& device : {cpu({.threads = 1}), reference()})
    for (const DType dtype : {DType::bf16, DType::f16})
      for (const WeightProduct& product : weight_products()) {
        INFO(device.name() << ", " << to_string(dtype) << ", " << product.label);
        const Tensor x = random_tensor(product.x, device, 1),
                     w = random_tensor(product.w, device, 2);
        const Tensor got = product.f(precision_of(dtype), x, w);
        CHECK(got.dtype() == DType::f32);
        // What f32 may lose in a sum of up to 64 products.
        constexpr double sums = 64 * 64 * 0x1p-24;
        CHECK(difference(got, product.f({}, nearest_in(x, dtype), nearest_in(w, dtype)), 0, sums) ==
              "");
        const Tensor size = product.f({}, abs(x), abs(w));
        const double u = half_unit(dtype);
        const Tensor excess = abs(got - product.f({}, x, w)) - (2 * u + u * u) * size;
        if (got.elements() > 0) CHECK(max(excess).item<float>() <= sums);
        // Traced and planned, the same.
        const auto f = [&](const Tensor& x, const Tensor& w) {
          return product.f(precision_of(dtype), x, w);
        };
        CHECK(difference(compile(f)(x, w), got, 0, sums) == "");
      }
}

TEST_CASE("in f32 a network has the plan that it has without a precision", "[models][precision]") {
  const Device device = cpu({.threads = 1});
  for (const NetworkConfig& config : {NetworkConfig(precision_dit()), precision_unet()}) {
    const NetworkCase net(config, device);
    const auto plain = [&](const Parameters& p, const Tensor& x) {
      return apply(config, p, x, {.t = net.t, .r = net.r}, net.labels);
    };
    CHECK(program_of(net.velocity({}), net.parameters, net.z) ==
          program_of(plain, net.parameters, net.z));
    CHECK(with_precision(config, precision_of(DType::bf16)) == config);
  }
}

TEST_CASE("tangents are those of the map at the rounded factors, rounded only if they are to be",
          "[models][precision]") {
  const Device device = cpu({.threads = 1});
  constexpr double sums = 1e-4;
  for (const WeightProduct& product : weight_products()) {
    INFO(product.label);
    const Tensor x = random_tensor(product.x, device, 1), w = random_tensor(product.w, device, 2),
                 dx = random_tensor(product.x, device, 3), dw = random_tensor(product.w, device, 4);
    const Tensor rx = nearest_in(x, DType::bf16), rw = nearest_in(w, DType::bf16);
    for (const DType tangents : {DType::f32, DType::bf16, DType::f16}) {
      INFO(to_string(tangents));
      const auto f = [&](const Tensor& x, const Tensor& w) {
        return product.f(precision_of(DType::bf16, tangents), x, w);
      };
      const Tensor dy = jvp(f, std::tuple(x, w), std::tuple(dx, dw)).second;
      const Tensor expected =
          product.f({}, nearest_in(dx, tangents), rw) + product.f({}, rx, nearest_in(dw, tangents));
      CHECK(difference(dy, expected, 0, sums) == "");
    }
  }
}

TEST_CASE("cotangents are rounded before they are multiplied, and gradients stay in f32",
          "[models][precision]") {
  const Device device = cpu({.threads = 1});
  for (const WeightProduct& product : weight_products()) {
    INFO(product.label);
    const Tensor x = random_tensor(product.x, device, 1), w = random_tensor(product.w, device, 2);
    const Tensor rx = nearest_in(x, DType::bf16), rw = nearest_in(w, DType::bf16);
    for (const DType cotangents : {DType::f32, DType::bf16, DType::f16}) {
      INFO(to_string(cotangents));
      const auto f = [&](const Tensor& x, const Tensor& w) {
        return product.f(precision_of(DType::bf16, DType::f32, cotangents), x, w);
      };
      const auto plain = [&](const Tensor& x, const Tensor& w) { return product.f({}, x, w); };
      const auto [y, back] = vjp(f, x, w);
      const Tensor along = random_tensor(y.shape(), device, 9);
      const auto [gx, gw] = back(along);
      const auto [ex, ew] = vjp(plain, rx, rw).second(nearest_in(along, cotangents));
      CHECK(gw.dtype() == DType::f32);
      CHECK(difference(gx, ex, 0, 1e-4) == "");
      CHECK(difference(gw, ew, 0, 1e-4) == "");
    }
  }
}

TEST_CASE("the gradient of a bias is the sum of the rounded cotangents", "[models][precision]") {
  const Device device = cpu({.threads = 1});
  const Tensor x = random_tensor({7, 13}, device, 1), w = random_tensor({5, 13}, device, 2),
               b = random_tensor({5}, device, 3), along = random_tensor({7, 5}, device, 4);
  for (const char* precision : {"f32", "bf16", "f16"}) {
    const auto f = [&](const Tensor& b) { return linear(x, w, b, precision_from(precision)); };
    const Tensor got = std::get<0>(vjp(f, b).second(along));
    const Tensor rounded = nearest_in(along, precision_from(precision).cotangents);
    CHECK(difference(got, sum(rounded, {0}), 0, 1e-6) == "");
  }
}

TEST_CASE("<u, Jv> = <J'u, v> for networks in 16 bits", "[models][precision]") {
  const Device device = cpu({.threads = 1});
  for (const NetworkConfig& config : {NetworkConfig(precision_dit()), precision_unet()}) {
    const NetworkCase net(config, device);
    const Tensor dz = random_tensor(net.z.shape(), device, 12);
    for (const auto& [precision, bound] :
         {std::pair(precision_of(DType::bf16), 1e-5), std::pair(precision_of(DType::f16), 1e-5),
          // What is rounded differs between the two sides: two roundings a layer.
          std::pair(precision_from("bf16"), 16 * 0x1p-8),
          std::pair(precision_from("bf16/bf16/bf16"), 16 * 0x1p-8),
          std::pair(precision_from("f16"), 16 * 0x1p-11)}) {
      INFO(family(config) << " " << to_string(precision));
      const auto u = net.velocity(precision);
      const auto f = [&](const Tensor& z) { return u(net.parameters, z); };
      const Tensor dy = jvp(f, std::tuple(net.z), std::tuple(dz)).second;
      const auto [y, back] = vjp(f, net.z);
      const Tensor along = random_tensor(y.shape(), device, 13);
      const double forwards = inner_product(along, dy),
                   backwards = inner_product(std::get<0>(back(along)), dz);
      const double size = std::sqrt(inner_product(along, along) * inner_product(dy, dy));
      CHECK(std::abs(forwards - backwards) <= bound * size);
    }
  }
}

TEST_CASE("the gradient of a JVP of rounded factors is that at the rounded factors",
          "[models][precision]") {
  const Device device = cpu({.threads = 1});
  for (const WeightProduct& product : weight_products()) {
    INFO(product.label);
    const Tensor x = random_tensor(product.x, device, 1), w = random_tensor(product.w, device, 2),
                 dx = random_tensor(product.x, device, 3);
    const auto energy = [&](const Precision& precision) {
      return [&, precision](const Tensor& w) {
        const auto f = [&](const Tensor& x) { return product.f(precision, x, w); };
        const auto [y, dy] = jvp(f, x, dx);
        return sum(y * dy);
      };
    };
    // x enters with its rounded value, and with dx as it is.
    const Tensor rx = nearest_in(x, DType::bf16), rw = nearest_in(w, DType::bf16);
    const auto expected = [&](const Tensor& w) {
      return sum(product.f({}, rx, w) * product.f({}, dx, w));
    };
    CHECK(difference(grad(energy(precision_of(DType::bf16)))(w), grad(expected)(rw), 1e-4, 1e-4) ==
          "");
  }
  const NetworkCase net(precision_dit(), device);
  const Tensor dz = random_tensor(net.z.shape(), device, 12);
  const auto gradient = [&](const Precision& precision) {
    const auto energy = [&](const Tensor& z) {
      const auto f = [&](const Tensor& z) { return net.velocity(precision)(net.parameters, z); };
      return sum(square(jvp(f, z, dz).second));
    };
    return grad(energy)(net.z);
  };
  const Tensor exact = gradient({});
  for (const auto& [name, bound] : {std::pair("bf16", 0.1), std::pair("bf16/bf16/bf16", 0.1),
                                    std::pair("f16", 0.0125), std::pair("f16/f16/f32", 0.0125)}) {
    INFO(name);
    const double distance = relative_distance(gradient(precision_from(name)), exact);
    CHECK(distance > 0);
    CHECK(distance < bound);
  }
}

TEST_CASE("a product in 16 bits under vmap, and its gradients, are those one by one",
          "[models][precision]") {
  const Device device = cpu({.threads = 1});
  const Tensor xs = random_tensor({3, 4, 9}, device, 1), w = random_tensor({5, 9}, device, 2),
               b = random_tensor({5}, device, 3);
  const auto f = [&](const Tensor& x) { return linear(x, w, b, precision_from("bf16/bf16/bf16")); };
  const auto slope = grad([&](const Tensor& x) { return sum(square(f(x))); });
  const Tensor all = vmap(f)(xs), slopes = vmap(slope)(xs);
  for (std::int64_t i = 0; i < 3; ++i) {
    const auto one = [&](const Tensor& x) {
      return reshape(slice_axis(x, 0, i, i + 1), {x.size(1), x.size(2)});
    };
    CHECK(difference(one(all), f(one(xs)), 0, 1e-6) == "");
    CHECK(difference(one(slopes), slope(one(xs)), 0, 1e-5) == "");
  }
}

TEST_CASE("operands of products are 16 bits wide in the program", "[models][precision]") {
  const Device device = cpu({.threads = 1});
  for (const NetworkConfig& config : {NetworkConfig(precision_dit()), precision_unet()})
    for (const DType dtype : {DType::bf16, DType::f16}) {
      INFO(family(config) << " " << to_string(dtype));
      const NetworkCase net(config, device);
      const auto forward =
          operand_dtypes(program_of(net.velocity(precision_of(dtype)), net.parameters, net.z));
      CHECK(!forward.empty());
      for (const auto& [lhs, rhs] : forward) CHECK((lhs == dtype && rhs == dtype));
      // A whole step: its products, of cotangents too.
      const auto loss = [&](const Parameters& p, const Tensor& z) {
        return sum(square(net.velocity(precision_of(dtype, DType::f32, dtype))(p, z)));
      };
      const auto step = operand_dtypes(program_of(grad(loss), net.parameters, net.z));
      CHECK(step.size() > forward.size());
      for (const auto& [lhs, rhs] : step) CHECK((lhs == dtype && rhs == dtype));
    }
}

TEST_CASE("blocks that are computed again have the precision of the first time",
          "[models][precision]") {
  const Device device = cpu({.threads = 1});
  for (const NetworkConfig& config : {NetworkConfig(precision_dit()), precision_unet()}) {
    const NetworkCase net(config, device), again(with_checkpoints(config), device);
    const auto gradient = [](const NetworkCase& net) {
      return grad([&](const Tensor& z) {
        return sum(square(net.velocity(precision_from("bf16"))(net.parameters, z)));
      })(net.z);
    };
    CHECK(relative_distance(gradient(again), gradient(net)) < 1e-3);
    CHECK(relative_distance(gradient(again), gradient(net)) <
          0.5 * relative_distance(grad([&](const Tensor& z) {
                                    return sum(square(net.velocity({})(net.parameters, z)));
                                  })(net.z),
                                  gradient(net)));
  }
}

TEST_CASE("a training step of dit28 in bf16 needs less memory", "[models][precision][memory]") {
  const Device device = cpu({.threads = 1});
  const BenchmarkNetwork& network = benchmark_network("dit28");
  const auto peak = [&](const char* precision) {
    return static_cast<double>(Benchmark(BenchmarkTask::meanflow,
                                         with_precision(network.config, precision_from(precision)),
                                         network.batch, device)
                                   .memory_report()
                                   .peak_bytes());
  };
  CHECK(peak("bf16") < peak("f32"));
}

TEST_CASE("precisions have texts, and other texts are refused", "[models][precision]") {
  for (const char* text : {"f32", "bf16", "f16", "bf16/bf16/bf16", "bf16/f32/f32", "f16/bf16/f32"})
    CHECK(to_string(precision_from(text)) == text);
  CHECK(precision_from("f32") == Precision{});
  CHECK(precision_from("bf16") == precision_of(DType::bf16, DType::f32, DType::bf16));
  CHECK(precision_from("bf16/f32/bf16") == precision_from("bf16"));
  CHECK_FALSE(needs_loss_scale(precision_from("bf16")));
  CHECK(needs_loss_scale(precision_from("f16")));
  CHECK_FALSE(needs_loss_scale(precision_from("f16/f32/f32")));
  for (const char* text : {"", "fp16", "F32", "f64", "i32", "bf16/", "bf16/f32", "/f32/f32",
                           "f32/f32/f32/f32", "f32//f32", " f32", "f32/f32/f8"}) {
    INFO(text);
    CHECK_THAT(message_of<FormatError>([&] { precision_from(text); }),
               has_text("precision '" + std::string(text) + "'") && has_text("'bf16'"));
  }
}
