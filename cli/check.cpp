// fluxion check: does this build compute the right things on this machine?
#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <vector>

#include "backends/reference/reference.h"
#include "cli/command.h"
#include "engine/compile.h"
#include "engine/error.h"
#include "engine/graph/ops.h"
#include "engine/graph/philox.h"
#include "engine/number_text.h"
#include "engine/platform/machine.h"
#if FLUXION_WITH_AUTOGRAD
#include "autograd/check.h"
#include "autograd/transforms.h"
#endif

namespace fluxion::cli {

namespace {

using CheckArguments = CommonOptions;

struct Result {
  std::string name;
  bool passed = false;
  std::string detail;
};

std::string scientific(double value) { return scientific_text(value, 1); }

// Runs one check; what it throws is its failure.
Result checked(const std::string& name, const std::function<Result()>& check) {
  try {
    Result result = check();
    result.name = name;
    return result;
  } catch (const std::exception& error) {
    return {name, false, error.what()};
  }
}

double largest_difference(const std::vector<float>& a, const std::vector<float>& b) {
  double largest = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double difference = std::abs(static_cast<double>(a[i]) - b[i]);
    largest = std::max(largest, std::isnan(difference) ? HUGE_VAL : difference);
  }
  return largest;
}

// The same numbers on both devices: a matrix product, a softmax and a reduction, sizes that leave
// remainders in every loop.
Result against_reference(const Device& device) {
  const auto values = [](const Device& on) {
    const Tensor key = random_key(7, on);
    const Tensor a = normal(fold_in(key, 0), {67, 45}), b = normal(fold_in(key, 1), {45, 53});
    return mean(softmax(silu(matmul(a, b)) * 0.5) + tanh(sum(a, {1}, true)), {0}).to_host<float>();
  };
  const double difference = largest_difference(values(device), values(reference()));
  return {"", difference < 1e-5, "largest difference " + scientific(difference)};
}

// The known answer of Random123's test vectors for a zero counter and a zero key, and the same bits
// on both devices.
Result random_numbers(const Device& device) {
  const std::array<std::uint32_t, 4> known = {0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u};
  if (philox4x32({0, 0, 0, 0}, {0, 0}) != known)
    return {"", false, "Philox-4x32-10 differs from its published vectors"};
  const auto bits = [](const Device& on) {
    return random_bits(random_key(3, on), {1001}).to_host<std::uint32_t>();
  };
  return {"", bits(device) == bits(reference()), "1001 words, equal bits"};
}

// Twenty elementwise ops are one pass over memory.
Result fused_chain(const Device& device) {
  const auto chain = compile([](const Tensor& x) {
    Tensor y = x;
    for (int i = 0; i < 10; ++i) y = tanh(y * 1.01);
    return y;
  });
  const Tensor x = full({4096}, 0.5, DType::f32, device);
  const MemoryReport report = chain.memory_report(x);
  return {
      "", report.kernels == 1,
      "20 ops, " + std::to_string(report.kernels) + (report.kernels == 1 ? " kernel" : " kernels")};
}

#if FLUXION_WITH_AUTOGRAD
struct Function {
  const char* name;
  std::vector<Shape> inputs;
  std::function<Tensor(const std::vector<Tensor>&)> f;
};

std::vector<Function> functions() {
  return {
      {"elementwise",
       {{3, 5}},
       [](const std::vector<Tensor>& x) {
         return sin(x[0]) * exp(x[0] * 0.3) + gelu_tanh(x[0]) / (square(x[0]) + 1.0);
       }},
      {"matmul",
       {{4, 3}, {3, 5}},
       [](const std::vector<Tensor>& x) { return silu(matmul(x[0], x[1])); }},
      {"softmax", {{4, 7}}, [](const std::vector<Tensor>& x) { return softmax(x[0]); }},
      {"layer norm",
       {{4, 8}, {8}},
       [](const std::vector<Tensor>& x) { return layer_norm(x[0], 1e-6, x[1]); }},
      {"attention",
       {{2, 5, 4}, {2, 5, 4}, {2, 5, 4}},
       [](const std::vector<Tensor>& x) { return attention(x[0], x[1], x[2]); }},
      {"gradient of a JVP",
       {{6}},
       [](const std::vector<Tensor>& x) {
         const auto along = [](const Tensor& point) {
           const auto f = [](const Tensor& y) { return sin(y) * sum(square(y)); };
           return sum(square(jvp(f, point, ones_like(point)).second));
         };
         return grad(along)(x[0]);
       }},
  };
}

Result derivatives(const Function& function, const Device& device) {
  const Tensor key = random_key(11, device);
  std::vector<Tensor> inputs;
  for (std::size_t i = 0; i < function.inputs.size(); ++i)
    inputs.push_back(
        normal(fold_in(key, static_cast<std::uint32_t>(i)), function.inputs[i], DType::f64));
  const DerivativeCheck check = check_derivatives(
      [&](const std::vector<Tensor>& x) { return std::vector<Tensor>{function.f(x)}; }, inputs);
  if (!check.passed) return {"", false, check.message};
  return {"", true,
          "difference quotient " + scientific(check.jvp_error) + ", adjoint " +
              scientific(check.adjoint_error)};
}

// On a device without f64, where difference quotients say little: gradients in f32 against those of
// the reference.
Result derivatives_in_f32(const Function& function, const Device& device) {
  const auto gradients = [&](const Device& on) {
    const Tensor key = random_key(11, on);
    std::vector<Tensor> inputs;
    for (std::size_t i = 0; i < function.inputs.size(); ++i)
      inputs.push_back(normal(fold_in(key, static_cast<std::uint32_t>(i)), function.inputs[i]));
    const std::vector<Tensor> all =
        grad([&](const std::vector<Tensor>& x) { return sum(square(function.f(x))); })(inputs);
    std::vector<float> values;
    for (const Tensor& each : all) {
      const std::vector<float> part = each.to_host<float>();
      values.insert(values.end(), part.begin(), part.end());
    }
    return values;
  };
  const std::vector<float> expected = gradients(reference());
  double largest = 1;
  for (const float each : expected)
    largest = std::max(largest, std::abs(static_cast<double>(each)));
  const double difference = largest_difference(gradients(device), expected) / largest;
  return {"", difference < 1e-5,
          "difference from reference, of the largest " + scientific(difference)};
}
#endif

int check(const CheckArguments& options, const Streams& streams) {
  const Device device = open_device(options, streams);
  const std::optional<std::uint64_t> memory = available_memory_bytes();
  const std::string memory_text = memory ? bytes_text(*memory) + " free" : "unknown";

  std::vector<Result> results;
  results.push_back(checked("agrees with reference", [&] { return against_reference(device); }));
  results.push_back(checked("random numbers", [&] { return random_numbers(device); }));
  if (device.backend().capabilities().limits.fuses)
    results.push_back(checked("kernel fusion", [&] { return fused_chain(device); }));
#if FLUXION_WITH_AUTOGRAD
  for (const Function& function : functions())
    results.push_back(checked(std::string("derivative: ") + function.name, [&] {
      return device.backend().capabilities().f64 ? derivatives(function, device)
                                                 : derivatives_in_f32(function, device);
    }));
#endif
  bool passed = true;
  for (const Result& result : results) passed = passed && result.passed;

  if (options.json) {
    nlohmann::json list = nlohmann::json::array();
    for (const Result& result : results)
      list.push_back({{"name", result.name}, {"passed", result.passed}, {"detail", result.detail}});
    nlohmann::json object = {
        {"version", FLUXION_VERSION}, {"device", device.name()},
        {"cpus", usable_cpus()},      {"derivatives", static_cast<bool>(FLUXION_WITH_AUTOGRAD)},
        {"passed", passed},           {"checks", list}};
    object["free_memory_bytes"] = memory ? nlohmann::json(*memory) : nlohmann::json();
    write_json(streams.out, object);
    return passed ? 0 : 1;
  }
  streams.out << "fluxion " FLUXION_VERSION
              << (FLUXION_WITH_AUTOGRAD ? "" : ", without derivatives and training") << "\n";
  streams.out << "device   " << device.name() << "\nmemory   " << memory_text << "\n\n";
  for (const Result& result : results) {
    std::string name = result.name;
    name.resize(std::max<std::size_t>(32, name.size()), ' ');
    streams.out << (result.passed ? "  OK    " : "  FAIL  ") << name
                << printable(result.detail, 400) << "\n";
  }
  streams.out << (passed ? "\nAll is well." : "\nSomething is wrong.") << std::endl;
  return passed ? 0 : 1;
}

}  // namespace

Command add_check(CommandLine& program, const Streams& streams) {
  auto options = std::make_shared<CheckArguments>();
  const Parser parser = program.add_subcommand("check", "Test this build on this machine");
  parser.footer("Exit code 0 if every check passed, else 1.\n\nExample:\n  fluxion check");
  add_device(parser, *options);
  add_json(parser, *options);
  return {parser, [options, &streams] { return check(*options, streams); }};
}

}  // namespace fluxion::cli
