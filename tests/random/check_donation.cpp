#include "tests/random/check_donation.h"

#include <algorithm>
#include <numeric>

#include "engine/compile.h"
#include "engine/graph/ops.h"
#include "tests/random/values.h"

namespace fluxion::testing {

namespace {

enum class Extra {
  argument,   // as it is
  flattened,  // shares memory with it, where views do
  reversed,   // along every axis
  beginning,  // without the last row
  update,     // elementwise, so that it may lie in the argument's memory
  joined,     // elementwise with an output of its type
  folded,     // with its own reverse: reads elements that an update in place would have changed
  row,        // softmax: a row is read before it is written
  again,      // an output once more
  count,
};

constexpr const char* extra_names[] = {"argument", "flattened", "reversed", "beginning", "update",
                                       "joined",   "folded",    "row",      "again"};

struct ExtraOutput {
  Extra kind;
  std::size_t argument, output;
};

// What chance adds to a program. Arguments are the inputs, then once more those named by `twins`.
struct DonatedCall {
  std::vector<bool> donated;
  std::vector<std::size_t> twins;
  std::vector<ExtraOutput> extras;
  bool extras_first = false;
};

DonatedCall draw_call(Choices& choices, std::size_t inputs, std::size_t outputs) {
  const auto any_of = [&](std::size_t count) {
    return static_cast<std::size_t>(choices.below(static_cast<std::int64_t>(count)));
  };
  DonatedCall call;
  if (choices.one_in(4)) call.twins.push_back(any_of(inputs));
  const std::size_t arguments = inputs + call.twins.size();
  for (std::size_t i = 0; i < arguments; ++i) call.donated.push_back(!choices.one_in(3));
  for (std::int64_t i = choices.between(1, 6); i > 0; --i)
    call.extras.push_back({static_cast<Extra>(choices.below(static_cast<int>(Extra::count))),
                           any_of(arguments), any_of(outputs)});
  call.extras_first = choices.one_in(2);
  return call;
}

std::string described(const DonatedCall& call) {
  std::string text = " (donated:";
  for (std::size_t i = 0; i < call.donated.size(); ++i)
    if (call.donated[i]) text += " " + std::to_string(i);
  text += "; twins:";
  for (const std::size_t twin : call.twins) text += " " + std::to_string(twin);
  text += call.extras_first ? "; first:" : "; last:";
  for (const ExtraOutput& extra : call.extras)
    text += " " + std::string(extra_names[static_cast<std::size_t>(extra.kind)]) + "(" +
            std::to_string(extra.argument) + ", " + std::to_string(extra.output) + ")";
  return text + ")";
}

Tensor make_extra(const ExtraOutput& extra, const Tensor& x, const Tensor& output) {
  const bool floating = is_floating(x.dtype());
  Dims axes(static_cast<std::size_t>(x.rank()));
  std::iota(axes.begin(), axes.end(), 0);
  switch (extra.kind) {
    case Extra::flattened:
      return reshape(x, {x.elements()});
    case Extra::reversed:
      return flip(x, axes);
    case Extra::beginning:
      if (x.rank() > 0 && x.size(0) > 1) return slice_axis(x, 0, 0, x.size(0) - 1);
      return x;
    case Extra::update:
      return floating ? x * 0.5 + 1.0 : x;
    case Extra::joined:
      return floating && output.type() == x.type() ? x - output * 0.25 : x;
    case Extra::folded:
      return floating ? x * 0.5 + flip(x, axes) : x;
    case Extra::row:
      return floating && x.rank() > 0 && x.elements() > 0 ? softmax(x) : x;
    case Extra::again:
      return output;
    case Extra::argument:
    case Extra::count:
      break;
  }
  return x;
}

}  // namespace

int check_donation(const RandomProgram& program, const CheckDevices& devices) {
  Choices choices(program.points * 31 + 7 * static_cast<std::uint64_t>(program.next_value));
  const std::size_t inputs = program.inputs.size();
  const DonatedCall call = draw_call(choices, inputs, program.outputs.size());
  DType floating = DType::f64;  // that is computed in now
  const TensorFunction f = [&](const Tensors& arguments) {
    Tensors outputs =
        build(program, {arguments.begin(), arguments.begin() + static_cast<std::ptrdiff_t>(inputs)},
              {.floating = floating});
    Tensors extras;
    for (const ExtraOutput& extra : call.extras)
      extras.push_back(make_extra(extra, arguments[extra.argument], outputs[extra.output]));
    outputs.insert(call.extras_first ? outputs.begin() : outputs.end(), extras.begin(),
                   extras.end());
    return outputs;
  };
  const auto arguments_on = [&](const Device& device) {
    Tensors arguments = make_inputs(program, device, floating);
    for (const std::size_t twin : call.twins) arguments.push_back(arguments[twin]);
    return arguments;
  };
  std::vector<Values> expected = host(f(arguments_on(devices.reference)));
  double relative = 1e-9;
  Values slack;
  if (!devices.cpu.backend().capabilities().f64) {
    // Within 30 times what rounding to f32 costs the reference.
    floating = DType::f32;
    relative = 3e-5;
    const std::vector<Values> exact = expected;
    expected = host(f(arguments_on(devices.reference)));
    for (std::size_t i = 0; i < exact.size(); ++i) {
      double cost = 0;
      for (std::size_t k = 0; k < exact[i].size(); ++k)
        cost = std::max(cost, std::abs(expected[i][k] - exact[i][k]));
      slack.push_back(30 * cost);
    }
  }

  // The arguments in two lists, as compile() wants them; `f` takes them in order.
  const auto split = [&](const Tensors& arguments) {
    std::pair<Tensors, Tensors> lists;
    for (std::size_t i = 0; i < arguments.size(); ++i)
      (call.donated[i] ? lists.first : lists.second).push_back(arguments[i]);
    return lists;
  };
  const auto compiled = compile(
      [&](const Tensors& donated, const Tensors& kept) {
        Tensors arguments;
        std::size_t next_donated = 0, next_kept = 0;
        for (const bool each : call.donated)
          arguments.push_back(each ? donated[next_donated++] : kept[next_kept++]);
        return f(arguments);
      },
      {.donate = {0}});
  const std::string says = described(call);

  Tensors first;
  int taken_over = 0;
  for (int repeat = 0; repeat < 2; ++repeat) {
    const Tensors arguments = arguments_on(devices.cpu);
    const std::vector<Values> before = host(arguments);
    const auto [donated, kept] = split(arguments);
    const Tensors results = compiled(donated, kept);
    require_equal("with donated arguments" + says, host(results), expected, relative, slack);
    for (std::size_t i = 0; i < arguments.size(); ++i) {
      const bool used_up = std::any_of(donated.begin(), donated.end(), [&](const Tensor& other) {
        return other.same_as(arguments[i]);
      });
      if (!used_up && host({arguments[i]})[0] != before[i])
        throw Failure{"argument " + std::to_string(i) + ", which was not donated, changed" + says};
      if (!used_up) continue;
      bool refused = false;
      try {
        eval(arguments[i]);
      } catch (const Error&) {
        refused = true;
      }
      if (!refused) throw Failure{"a donated argument can still be used" + says};
    }
    if (repeat == 0) {
      first = results;
      const std::vector<std::int32_t>& donors =
          compiled
              .program(split(arguments_on(devices.cpu)).first,
                       split(arguments_on(devices.cpu)).second)
              .donations;
      taken_over = static_cast<int>(std::count_if(donors.begin(), donors.end(),
                                                  [](std::int32_t donor) { return donor >= 0; }));
    }
  }
  require_equal("results of a call after the next one" + says, host(first), expected, relative,
                slack);
  return taken_over;
}

}  // namespace fluxion::testing
