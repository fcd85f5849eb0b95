#include "tests/random/check.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "autograd/linearize.h"
#include "autograd/vmap.h"
#include "engine/compile.h"
#include "engine/graph/ops.h"
#include "engine/plan/plan.h"
#include "tests/op_examples.h"
#include "tests/random/actions.h"
#include "tests/random/check_donation.h"
#include "tests/random/values.h"

namespace fluxion::testing {

namespace {

bool varies(const Tensor& tensor) { return is_floating(tensor.dtype()); }

// Random directions of the same types; empty for what is not floating.
Tensors directions(const Tensors& like, std::uint64_t seed) {
  Tensors result;
  for (std::size_t i = 0; i < like.size(); ++i)
    result.push_back(varies(like[i])
                         ? to_tensor(random_value(like[i].shape(), -1, 1, seed + 31 * i),
                                     like[i].device(), like[i].dtype())
                         : Tensor());
  return result;
}

TensorFunction function_of(const RandomProgram& program, DType floating, bool regions) {
  return [&program, floating, regions](const Tensors& inputs) {
    return build(program, inputs, {.floating = floating, .regions = regions});
  };
}

// ---- transforms, on flat lists

struct Pushed {
  Tensors outputs, tangents;
};
Pushed pushed(const TensorFunction& f, const Tensors& inputs, const Tensors& tangents) {
  Leaves traced(inputs, tangents);
  Pushed result{f(traced.tensors()), {}};
  result.tangents = traced.push_forward(result.outputs);
  return result;
}

Tensors pulled(const TensorFunction& f, const Tensors& inputs, const Tensors& cotangents) {
  Leaves traced(inputs);
  const Tensors outputs = f(traced.tensors());
  return traced.linear_map(outputs).transpose(cotangents);
}

double dot(const std::vector<Values>& a, const std::vector<Values>& b,
           double* magnitude = nullptr) {
  double total = 0;
  for (std::size_t i = 0; i < a.size(); ++i)
    for (std::size_t k = 0; k < std::min(a[i].size(), b[i].size()); ++k) {
      total += a[i][k] * b[i][k];
      if (magnitude) *magnitude += std::abs(a[i][k] * b[i][k]);
    }
  return total;
}

// ---- the checks

// What rounding each op to f32 costs the reference, for each output.
Values costs_of_rounding(const std::vector<Values>& exact, const std::vector<Values>& rounded) {
  Values costs;
  for (std::size_t i = 0; i < exact.size(); ++i) {
    double cost = 0;
    for (std::size_t k = 0; k < exact[i].size(); ++k)
      cost = std::max(cost, std::abs(rounded[i][k] - exact[i][k]));
    costs.push_back(cost);
  }
  return costs;
}

void check_values(const RandomProgram& program, const CheckDevices& devices) {
  const auto values = [&](const Device& device, DType dtype) {
    return host(function_of(program, dtype, true)(make_inputs(program, device, dtype)));
  };
  const auto exact = values(devices.reference, DType::f64);
  require_equal("value on the CPU in f64", values(devices.cpu, DType::f64), exact, 1e-9);
  // What rounding each op to f32 costs says how well conditioned the program is.
  const auto rounded = values(devices.reference, DType::f32);
  Values slack = costs_of_rounding(exact, rounded);
  for (std::size_t i = 0; i < exact.size(); ++i)
    if (!(slack[i] <= 0.01 * (1 + largest(exact[i]))))
      throw Failure{"value on the reference backend in f32: it is far from that in f64"};
  for (double& cost : slack) cost *= 30;
  require_equal("value on the CPU in f32", values(devices.cpu, DType::f32), rounded, 3e-5, slack);
}

// ---- of a device without f64, all that it computes is compared in f32

// Outputs, tangents and cotangents of the inputs, one after the other, compiled as one function.
std::vector<Values> all_values(const RandomProgram& program, const Device& device, DType dtype) {
  const Tensors inputs = make_inputs(program, device, dtype),
                along = directions(inputs, program.points + 1000);
  const TensorFunction f = function_of(program, dtype, true),
                       plain = function_of(program, dtype, false);
  const TensorFunction& moving = has_forward_mode(program.steps) ? f : plain;
  Tensors arguments = inputs;
  for (const Tensor& each : along)
    if (each) arguments.push_back(each);
  return host(compile([&](const Tensors& all) {
    const Tensors own(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(inputs.size()));
    Tensors direction = along;
    std::size_t next = inputs.size();
    for (Tensor& each : direction)
      if (each) each = all[next++];
    Pushed forward = pushed(moving, own, direction);
    Tensors results = forward.outputs;
    for (const Tensor& each : forward.tangents)
      if (each) results.push_back(each);
    for (const Tensor& each : pulled(f, own, directions(forward.outputs, program.points + 2000)))
      if (each) results.push_back(each);
    return results;
  })(arguments));
}

// Within 30 times what rounding each op to f32 costs the reference.
void check_in_f32(const RandomProgram& program, const CheckDevices& devices) {
  const auto exact = all_values(program, devices.reference, DType::f64),
             rounded = all_values(program, devices.reference, DType::f32);
  Values slack = costs_of_rounding(exact, rounded);
  for (double& cost : slack) cost *= 30;
  require_equal("value, tangent or cotangent in f32", all_values(program, devices.cpu, DType::f32),
                rounded, 3e-5, slack);
}

// Fourth order: (8 (f(+h) - f(-h)) - (f(+2h) - f(-2h))) / 12 h. Where that is not what `tangents`
// say, smaller steps may come closer.
void check_differences(const RandomProgram& program, const Tensors& inputs, const Tensors& along,
                       const std::vector<Values>& tangents, CheckResult& result) {
  Tensors stopped;
  {
    const BuildOptions recording{.regions = false, .stopped = &stopped};
    build(program, inputs, recording);
  }
  eval(stopped);
  std::size_t free = inputs.size();
  const auto shifted = compile([&](const Tensors& all) {
    // Inputs, then directions, then stopped values, then the step.
    const Tensors held(all.begin() + static_cast<std::ptrdiff_t>(2 * free), all.end() - 1);
    Tensors moved;
    for (std::size_t i = 0; i < free; ++i)
      moved.push_back(varies(all[i]) ? all[i] + all.back() * all[free + i] : all[i]);
    return build(program, moved, {.regions = false, .held = &held});
  });
  Tensors arguments = inputs;
  for (std::size_t i = 0; i < free; ++i) arguments.push_back(along[i] ? along[i] : inputs[i]);
  arguments.insert(arguments.end(), stopped.begin(), stopped.end());
  arguments.emplace_back();
  const auto at = [&](double step) {
    arguments.back() = Tensor::from(std::vector<double>{step}, {}, inputs.front().device());
    return host(shifted(arguments));
  };
  std::string failure;
  std::vector<std::vector<Values>> seen;
  for (const double h : {1e-3, 1e-4, 2e-5, 4e-6}) {
    const auto near_up = at(h), near_down = at(-h), far_up = at(2 * h), far_down = at(-2 * h);
    std::vector<Values> difference = near_up;
    for (std::size_t i = 0; i < difference.size(); ++i) {
      if (tangents[i].empty()) difference[i].clear();
      for (std::size_t k = 0; k < difference[i].size(); ++k)
        difference[i][k] =
            (8 * (near_up[i][k] - near_down[i][k]) - (far_up[i][k] - far_down[i][k])) / (12 * h);
    }
    try {
      require_equal("jvp against finite differences", tangents, difference, 1e-6);
      return;
    } catch (const Failure& each) {
      if (failure.empty()) failure = each.text;
    }
    seen.push_back(std::move(difference));
  }
  // Differences that disagree among themselves say nothing.
  for (std::size_t i = 1; i < seen.size(); ++i) {
    try {
      require_equal("", seen[i], seen[i - 1], 1e-5);
    } catch (const Failure&) {
      continue;
    }
    throw Failure{failure};
  }
  result.conditioned = false;
}

Tensors floating_only(Tensors tensors) {
  std::erase_if(tensors, [](const Tensor& tensor) { return !tensor || !varies(tensor); });
  return tensors;
}

// Where there is no cotangent, the input itself - which is not floating - stands in.
Tensors filled(Tensors cotangents, const Tensors& inputs) {
  for (std::size_t i = 0; i < inputs.size(); ++i)
    if (!cotangents[i]) cotangents[i] = inputs[i];
  return cotangents;
}

// The program's bytes parse to an equal program that runs to equal bits.
void check_serialised(const Program& program, const Device& device) {
  const Program parsed = parse_program(serialise(program));
  if (!(parsed == program)) throw Failure{"serialised: the parsed program differs"};
  verify(parsed);
  Backend& backend = device.backend();
  std::vector<std::shared_ptr<Buffer>> inputs;
  for (std::size_t i = 0; i < program.inputs.size(); ++i) {
    const TensorType& type = program.inputs[i];
    // Any values do, of the input's own kind.
    HostValue value = random_value(type.shape, -1, 1, 77 + i);
    if (type.dtype != DType::f64) value.dtype = type.dtype;
    if (!is_floating(type.dtype))
      for (double& each : value.values) each = each > 0;
    const Tensor tensor = to_tensor(value, device);
    inputs.push_back(tensor.node()->value(0));
  }
  std::vector<double> scalars;
  for (std::int32_t i = 0; i < program.scalars; ++i) scalars.push_back(0.5 + 0.125 * i);
  const auto run = [&](const Program& which) {
    std::vector<std::shared_ptr<Buffer>> outputs;
    std::vector<Buffer*> in, out;
    for (const auto& buffer : inputs) in.push_back(buffer.get());
    for (const TensorType& type : which.outputs) {
      outputs.push_back(backend.allocate(type));
      out.push_back(outputs.back().get());
    }
    backend.compile(which)->run({in, out, scalars}, {});
    std::vector<std::vector<std::byte>> bytes;
    for (std::size_t i = 0; i < outputs.size(); ++i) {
      bytes.emplace_back(which.outputs[i].bytes());
      backend.download(*outputs[i], which.outputs[i].dtype, bytes.back());
    }
    return bytes;
  };
  if (run(program) != run(parsed)) throw Failure{"serialised: the parsed program gives other bits"};
}

void check_derivatives(const RandomProgram& program, const CheckDevices& devices,
                       const CheckOptions& options, CheckResult& result) {
  const Tensors inputs = make_inputs(program, devices.cpu, DType::f64),
                along = directions(inputs, program.points + 1000);
  const TensorFunction f = function_of(program, DType::f64, true),
                       plain = function_of(program, DType::f64, false);
  // A custom_vjp has reverse mode alone: what it holds says how it moves forward.
  const bool forward_mode = has_forward_mode(program.steps);
  const TensorFunction& moving = forward_mode ? f : plain;

  const Pushed forward = pushed(moving, inputs, along);
  const auto outputs = host(forward.outputs), tangents = host(forward.tangents);
  for (std::size_t i = 0; i < outputs.size(); ++i)
    if (!varies(forward.outputs[i]) && forward.tangents[i])
      throw Failure{"jvp: an output that is not floating has a tangent"};
  if (options.differences) check_differences(program, inputs, along, tangents, result);

  // Compiled, with inputs and directions as arguments.
  Tensors arguments = inputs;
  for (const Tensor& each : along)
    if (each) arguments.push_back(each);
  const auto compiled = compile([&](const Tensors& all) {
    Tensors direction = along;
    std::size_t next = inputs.size();
    for (Tensor& each : direction)
      if (each) each = all[next++];
    Pushed both = pushed(
        moving, {all.begin(), all.begin() + static_cast<std::ptrdiff_t>(inputs.size())}, direction);
    for (Tensor& each : both.tangents)
      if (each) both.outputs.push_back(each);
    return both.outputs;
  });
  std::vector<Values> both = outputs;
  for (std::size_t i = 0; i < tangents.size(); ++i)
    if (forward.tangents[i]) both.push_back(tangents[i]);
  require_equal("compiled against uncompiled", host(compiled(arguments)), both, 1e-9);
  if (options.serialised) check_serialised(compiled.program(arguments), devices.cpu);

  // Reverse mode.
  const Tensors cotangents = directions(forward.outputs, program.points + 2000);
  const auto u = host(cotangents), v = host(along), back = host(pulled(f, inputs, cotangents));
  double magnitude = 1;
  const double left = dot(u, tangents, &magnitude), right = dot(back, v, &magnitude);
  if (!(std::abs(left - right) <= 1e-9 * magnitude)) {
    char line[160];
    std::snprintf(line, sizeof line, "vjp: <u, Jv> = %.17g but <J'u, v> = %.17g", left, right);
    throw Failure{line};
  }

  if (has_regions(program.steps)) {
    const Pushed inlined = pushed(plain, inputs, along);
    require_equal("value of regions", outputs, host(inlined.outputs), 1e-9);
    require_equal("jvp of regions", tangents, host(inlined.tangents), 1e-9);
    require_equal("vjp of regions", back, host(pulled(plain, inputs, cotangents)), 1e-9);
  }
  if (!options.second_order) return;
  const auto reverse_of_forward = host(
      pulled([&](const Tensors& x) { return floating_only(pushed(moving, x, along).tangents); },
             inputs, floating_only(cotangents)));
  const auto gradient = [&](const Tensors& x) { return filled(pulled(f, x, cotangents), inputs); };
  const auto of_reverse = host(forward_mode ? pushed(gradient, inputs, along).tangents
                                            : pulled(gradient, inputs, along));
  require_equal("second derivative: of jvp in reverse against of vjp", reverse_of_forward,
                of_reverse, 1e-8);
}

// Every example at once against one after the other: the function, or its derivative in either
// mode.
void check_batching(const RandomProgram& program, const CheckDevices& devices) {
  Choices choices(program.points + 17 * static_cast<std::uint64_t>(program.next_value));
  const std::int64_t size = choices.between(1, 3), mode = has_forward_mode(program.steps)
                                                              ? choices.below(3)
                                                              : 2 * choices.below(2);
  const TensorFunction f = function_of(program, DType::f64, true);
  // Inputs, directions and cotangents of each example; some are the same for all.
  std::vector<Tensors> examples;
  for (std::int64_t i = 0; i < size; ++i) {
    RandomProgram moved = program;
    moved.points += 7919 * static_cast<std::uint64_t>(i);
    examples.push_back(make_inputs(moved, devices.cpu, DType::f64));
    if (mode == 1)
      for (const Tensor& each : floating_only(directions(examples.back(), moved.points)))
        examples.back().push_back(each);
    if (mode == 2)
      for (const Tensor& each : floating_only(directions(f(examples.back()), moved.points)))
        examples.back().push_back(each);
  }
  const auto inputs = static_cast<std::ptrdiff_t>(program.inputs.size());
  const TensorFunction g = [&](const Tensors& all) {
    const Tensors x(all.begin(), all.begin() + inputs);
    auto next = all.begin() + inputs;
    if (mode == 0) return f(x);
    if (mode == 1) {
      Tensors along;
      for (const Tensor& each : x) along.push_back(varies(each) ? *next++ : Tensor());
      return floating_only(pushed(f, x, along).tangents);
    }
    // The traced leaves know which outputs have cotangents.
    const Leaves traced(x);
    const Tensors outputs = f(traced.tensors());
    Tensors cotangents;
    for (const Tensor& output : outputs) cotangents.push_back(varies(output) ? *next++ : Tensor());
    return floating_only(traced.linear_map(outputs).transpose(cotangents));
  };
  std::vector<MappedAxis> axes;
  Tensors arguments;
  for (std::size_t k = 0; k < examples[0].size(); ++k) {
    const Tensor& one = examples[0][k];
    if (k > 0 && choices.one_in(3)) {
      axes.push_back(not_mapped);
      arguments.push_back(one);
      for (Tensors& example : examples) example[k] = one;
      continue;
    }
    axes.push_back(choices.below(one.rank() + 1));
    Tensors parts;
    for (const Tensors& example : examples) parts.push_back(expand_dims(example[k], *axes.back()));
    arguments.push_back(concat(parts, *axes.back()));
  }
  Tensors batched;
  {
    const MappedLeaves traced(arguments, axes);
    batched = traced.batch(g(traced.tensors()));
  }
  std::vector<Values> looped(batched.size());
  for (const Tensors& example : examples) {
    const auto values = host(g(example));
    for (std::size_t i = 0; i < values.size(); ++i)
      looped[i].insert(looped[i].end(), values[i].begin(), values[i].end());
  }
  const char* const names[] = {"vmapped against looped", "vmapped jvp against looped",
                               "vmapped vjp against looped"};
  require_equal(names[mode], host(batched), looped, 1e-8);
}

}  // namespace

CheckResult place_and_check(RandomProgram& program, const CheckDevices& devices,
                            const CheckOptions& options) {
  CheckResult result;
  try {
    result.placed = place(program, devices.reference);
  } catch (const std::exception& error) {
    result.failure = std::string("threw: ") + error.what();
    return result;
  }
  return result.placed ? check(program, devices, options) : result;
}

bool place(RandomProgram& program, const Device& reference) {
  for (int attempt = 0; attempt < 6; ++attempt, ++program.points) {
    Tensors margins;
    const Tensors inputs = make_inputs(program, reference, DType::f64);
    const Tensors outputs = build(program, inputs, {.regions = false, .margins = &margins});
    const std::size_t count = outputs.size();
    Tensors all = outputs;
    all.insert(all.end(), margins.begin(), margins.end());
    const auto values = host(all);
    bool good = true;
    for (std::size_t i = 0; i < values.size(); ++i)
      for (const double value : values[i]) {
        if (i < count ? !(std::abs(value) < 1e5) && varies(outputs[i]) : !(value > 2e-3))
          good = false;
      }
    if (good) return true;
  }
  return false;
}

CheckResult check(const RandomProgram& program, const CheckDevices& devices,
                  const CheckOptions& options) {
  CheckResult result;
  try {
    if (devices.cpu.backend().capabilities().f64) {
      check_values(program, devices);
      check_derivatives(program, devices, options, result);
      if (options.batching) check_batching(program, devices);
    } else {
      check_in_f32(program, devices);
    }
    if (options.donation) result.taken_over = check_donation(program, devices);
  } catch (const Failure& failure) {
    result.failure = failure.text;
  } catch (const std::exception& error) {
    result.failure = std::string("threw: ") + error.what();
  }
  return result;
}

}  // namespace fluxion::testing
