#include "cli/graph_functions.h"

#include <algorithm>
#include <map>

#include "autograd/transforms.h"
#include "cli/command.h"
#include "engine/compile.h"
#include "engine/graph/ops.h"
#include "models/layers/layers.h"
#include "models/networks/network.h"

namespace fluxion::cli {

namespace {

using Tensors = std::vector<Tensor>;

std::int64_t or_else(std::int64_t given, std::int64_t own) { return given > 0 ? given : own; }

Tensor like(const Shape& shape, const Device& device, DType dtype = DType::f32) {
  return zeros(shape, dtype, device);
}

// A function of one tensor [batch, width].
GraphFunction of_rows(const char* name, std::int64_t batch, const GraphSizes& sizes,
                      const Device& device, std::function<Tensor(const Tensor&)> f) {
  const Shape shape{or_else(sizes.batch, batch), or_else(sizes.width, 8)};
  return {name, {{"x", like(shape, device)}}, {{"y"}}, [f = std::move(f)](const Tensors& x) {
            return Tensors{f(x[0])};
          }};
}

GraphFunction silu_product(const GraphSizes& sizes, const Device& device) {
  const std::int64_t batch = or_else(sizes.batch, 4), width = or_else(sizes.width, 8);
  return {"silu-product",
          {{"x", like({batch, width}, device)}, {"w", like({width, width}, device), true}},
          {{"y"}},
          [](const Tensors& x) { return Tensors{silu(matmul(x[0], x[1]))}; }};
}

GraphFunction tanh_chain(const GraphSizes& sizes, const Device& device) {
  return of_rows("tanh-chain", 4, sizes, device, [depth = or_else(sizes.depth, 3)](Tensor x) {
    for (std::int64_t i = 0; i < depth; ++i) x = tanh(1.5 * x);
    return x;
  });
}

GraphFunction softmax_rows(const GraphSizes& sizes, const Device& device) {
  return of_rows("softmax", 4, sizes, device, [](const Tensor& x) { return softmax(x); });
}
GraphFunction log_softmax_rows(const GraphSizes& sizes, const Device& device) {
  return of_rows("log-softmax", 4, sizes, device, [](const Tensor& x) { return log_softmax(x); });
}

GraphFunction norm_and_modulation(const GraphSizes& sizes, const Device& device) {
  const std::int64_t batch = or_else(sizes.batch, 4), tokens = or_else(sizes.tokens, 6),
                     width = or_else(sizes.width, 8);
  return {"layer-norm",
          {{"x", like({batch, tokens, width}, device)},
           {"shift", like({batch, width}, device)},
           {"scale", like({batch, width}, device)}},
          {{"y"}},
          [](const Tensors& x) { return Tensors{modulate(layer_norm(x[0], 1e-6), x[1], x[2])}; }};
}

GraphFunction attention_heads(const GraphSizes& sizes, const Device& device) {
  const Shape shape{or_else(sizes.heads, 2), or_else(sizes.tokens, 6), or_else(sizes.width, 8)};
  return {"attention",
          {{"q", like(shape, device)}, {"k", like(shape, device)}, {"v", like(shape, device)}},
          {{"y"}},
          [](const Tensors& x) { return Tensors{attention(x[0], x[1], x[2])}; }};
}

// A tiny MLP u(z, t, r), its parameters first among the arguments.
struct TinyNetwork {
  NetworkConfig config;
  std::vector<std::string> names;
  std::vector<GraphArgument> arguments;
  std::int64_t batch = 0;

  TinyNetwork(const GraphSizes& sizes, std::int64_t depth, const Device& device)
      : batch(or_else(sizes.batch, 4)) {
    MlpConfig mlp{.data_dim = 2};
    mlp.hidden.assign(static_cast<std::size_t>(or_else(sizes.depth, depth)),
                      or_else(sizes.width, 8));
    config = mlp;
    for (const auto& [name, shape] : parameter_shapes(config)) {
      names.push_back(name);
      arguments.push_back({name, like(shape, device), true});
    }
  }

  Tensor vector(const Device& device) const { return like({batch, 2}, device); }
  Tensor time(const Device& device) const { return like({batch}, device); }
  Velocity network(const Tensors& arguments) const {
    Parameters parameters;
    for (std::size_t i = 0; i < names.size(); ++i) parameters[names[i]] = arguments[i];
    return bind_parameters(config, parameters);
  }
  GraphFunction function(const char* name, std::vector<GraphArgument> inputs,
                         std::vector<show::NamedValue> results,
                         std::function<Tensors(const Velocity&, std::span<const Tensor>)> f) const {
    GraphFunction made{name, arguments, std::move(results), {}};
    made.arguments.insert(made.arguments.end(), inputs.begin(), inputs.end());
    made.f = [net = *this, f = std::move(f)](const Tensors& x) {
      return f(net.network(x), std::span(x).subspan(net.names.size()));
    };
    return made;
  }
};

GraphFunction mlp(const GraphSizes& sizes, const Device& device) {
  const TinyNetwork net(sizes, 1, device);
  return net.function("mlp",
                      {{"z", net.vector(device)}, {"t", net.time(device)}, {"r", net.time(device)}},
                      {{"u"}}, [](const Velocity& u, std::span<const Tensor> x) {
                        return Tensors{u(x[0], {.t = x[1], .r = x[2]}, {})};
                      });
}

GraphFunction flow_matching_loss(const GraphSizes& sizes, const Device& device) {
  const TinyNetwork net(sizes, 1, device);
  return net.function(
      "flow-matching-loss",
      {{"z", net.vector(device)}, {"v", net.vector(device)}, {"t", net.time(device)}}, {{"loss"}},
      [](const Velocity& u, std::span<const Tensor> x) {
        return Tensors{mean(square(u(x[0], {.t = x[2], .r = x[2]}, {}) - x[1]))};
      });
}

// The directions of the JVP are arguments so that the picture knows what its tangents are; dt is 1
// when it is trained.
GraphFunction meanflow_loss(const GraphSizes& sizes, const Device& device) {
  const TinyNetwork net(sizes, 1, device);
  return net.function(
      "meanflow-loss",
      {{"z", net.vector(device)},
       {"t", net.time(device)},
       {"r", net.time(device)},
       {"v", net.vector(device), false, show::Role::tangent},
       {"dt", net.time(device), false, show::Role::tangent}},
      {{"loss"}, {"target"}}, [](const Velocity& network, std::span<const Tensor> x) {
        const auto along = [&](const Tensor& z, const Tensor& t) {
          return network(z, {.t = t, .r = x[2]}, {});
        };
        const auto [u, dudt] = jvp(along, std::tuple(x[0], x[1]), std::tuple(x[3], x[4]));
        const Tensor target = stop_gradient(x[3] - per_sample(x[1] - x[2], 2) * dudt);
        return Tensors{mean(square(u - target)), target};
      });
}

GraphFunction lagrangian_loss(const GraphSizes& sizes, const Device& device) {
  const TinyNetwork net(sizes, 1, device);
  return net.function(
      "lagrangian-loss",
      {{"z", net.vector(device)},
       {"t", net.time(device)},
       {"r", net.time(device)},
       {"dr", net.time(device), false, show::Role::tangent}},
      {{"loss"}}, [](const Velocity& network, std::span<const Tensor> x) {
        const auto map = [&](const Tensor& r) {
          return x[0] - per_sample(x[1] - r, 2) * network(x[0], {.t = x[1], .r = r}, {});
        };
        const auto [end, speed] = jvp(map, std::tuple(x[2]), std::tuple(x[3]));
        const Tensor velocity = stop_gradient(network(end, {.t = x[2], .r = x[2]}, {}));
        return Tensors{mean(square(speed - velocity))};
      });
}

GraphFunction block(const GraphSizes& sizes, const Device& device) {
  DitConfig config;
  config.num_heads = or_else(sizes.heads, 2);
  config.hidden_size = or_else(sizes.width, 8);
  if (config.hidden_size % config.num_heads != 0)
    throw Error("dit-block: a width of " + std::to_string(config.hidden_size) +
                " can't be split into " + std::to_string(config.num_heads) + " heads");
  // One block sees tokens, not images: the size of the image does not matter.
  const std::int64_t batch = or_else(sizes.batch, 2), tokens = or_else(sizes.tokens, 6),
                     width = config.hidden_size;
  GraphFunction made{
      "dit-block",
      {{"h", like({batch, tokens, width}, device)}, {"c", like({batch, width}, device)}},
      {{"y"}},
      {}};
  std::vector<std::string> names;
  config.depth = 1;
  for (const auto& [name, shape] : parameter_shapes(NetworkConfig(config)))
    if (name.starts_with("blocks.0.")) {
      names.push_back(name);
      made.arguments.push_back({name.substr(9), like(shape, device), true});
    }
  made.f = [config, names](const Tensors& x) {
    Parameters parameters;
    for (std::size_t i = 0; i < names.size(); ++i) parameters[names[i]] = x[i + 2];
    return Tensors{dit_block(config, parameters, "blocks.0", x[0], x[1])};
  };
  return made;
}

// The arguments by name, or the usual ones.
std::vector<std::size_t> chosen(const GraphFunction& function,
                                const std::vector<std::string>& names, bool parameters,
                                const char* option) {
  std::vector<std::size_t> result;
  const auto floating = [&](std::size_t i) {
    return is_floating(function.arguments[i].like.dtype());
  };
  if (names.empty()) {
    for (const bool wanted : {parameters, false}) {
      for (std::size_t i = 0; i < function.arguments.size(); ++i)
        if (floating(i) && function.arguments[i].parameter == wanted &&
            function.arguments[i].role == show::Role::primal)
          result.push_back(i);
      if (!result.empty()) break;
    }
    if (result.empty())
      throw Error("graph: " + function.name + " has no floating argument to differentiate in");
    return result;
  }
  for (const std::string& name : names) {
    std::size_t found = 0;
    while (found < function.arguments.size() && function.arguments[found].name != name) ++found;
    if (found == function.arguments.size() || !floating(found)) {
      std::string known;
      for (std::size_t i = 0; i < function.arguments.size(); ++i)
        if (floating(i)) known += (known.empty() ? "" : ", ") + function.arguments[i].name;
      throw Error(std::string(option) + ": " + function.name + " has no floating argument '" +
                  name + "'; it has " + known);
    }
    if (std::find(result.begin(), result.end(), found) == result.end()) result.push_back(found);
  }
  return result;
}

}  // namespace

const std::vector<GraphFunctionEntry>& graph_functions() {
  static const std::vector<GraphFunctionEntry> entries = {
      {"silu-product", "silu(x w), the example of the tour", "--batch --width", silu_product},
      {"tanh-chain", "x = tanh(1.5 x), again and again", "--batch --width --depth", tanh_chain},
      {"softmax", "softmax over rows", "--batch --width", softmax_rows},
      {"log-softmax", "log softmax over rows", "--batch --width", log_softmax_rows},
      {"layer-norm", "layer norm over the last axis, then x (1 + scale) + shift",
       "--batch --tokens --width", norm_and_modulation},
      {"attention", "softmax(q k' / sqrt d) v", "--heads --tokens --width", attention_heads},
      {"mlp", "a multilayer perceptron u(z, t, r)", "--batch --width --depth", mlp},
      {"dit-block", "one block of a diffusion transformer", "--batch --tokens --width --heads",
       block},
      {"flow-matching-loss", "mean |u(z, t, t) - v|^2 of that perceptron",
       "--batch --width --depth", flow_matching_loss},
      {"meanflow-loss", "mean |u - sg(v - (t - r) du/dt)|^2, du/dt a JVP",
       "--batch --width --depth", meanflow_loss},
      {"lagrangian-loss", "mean |dX/dr - sg u(X, r, r)|^2, dX/dr a JVP to differentiate",
       "--batch --width --depth", lagrangian_loss},
  };
  return entries;
}

GraphFunction model_function(const Model& model, const GraphSizes& sizes) {
  const NetworkConfig& config = model.info.network;
  const std::int64_t batch = or_else(sizes.batch, 2);
  const Device device = model.parameters.begin()->second.device();
  GraphFunction made{family(config), {}, {{"u"}}, {}};
  std::vector<std::string> names;
  for (const auto& [name, value] : model.parameters) {
    names.push_back(name);
    made.arguments.push_back({name, value, true});
  }
  const bool classes = num_classes(config) > 0;
  made.arguments.push_back({"z", like(with_leading_axis(batch, sample_shape(config)), device)});
  made.arguments.push_back({"t", like({batch}, device)});
  made.arguments.push_back({"r", like({batch}, device)});
  if (classes) made.arguments.push_back({"labels", like({batch}, device, DType::i32)});
  made.f = [config, names, classes](const Tensors& x) {
    Parameters parameters;
    for (std::size_t i = 0; i < names.size(); ++i) parameters[names[i]] = x[i];
    const std::size_t n = names.size();
    return Tensors{apply(config, parameters, x[n], {.t = x[n + 1], .r = x[n + 2]},
                         classes ? x[n + 3] : Tensor())};
  };
  return made;
}

TracedFunction trace(const GraphFunction& function, GraphTransform transform,
                     const std::vector<std::string>& along, const std::vector<std::string>& wrt) {
  using show::NamedValue;
  using show::Role;
  const bool forward = transform == GraphTransform::jvp || transform == GraphTransform::grad_of_jvp;
  const bool backward =
      transform == GraphTransform::vjp || transform == GraphTransform::grad_of_jvp;
  const std::vector<std::size_t> moving =
      forward ? chosen(function, along, false, "--along") : std::vector<std::size_t>();
  const std::vector<std::size_t> learning =
      backward ? chosen(function, wrt, true, "--wrt") : std::vector<std::size_t>();

  // All arguments: the function's own, tangents of those that move, cotangents of the results (of
  // their tangents, if there are some).
  TracedFunction traced;
  Tensors arguments;
  std::vector<NamedValue>& inputs = traced.labels.inputs;
  for (const GraphArgument& argument : function.arguments) {
    arguments.push_back(argument.like);
    inputs.push_back({argument.name, argument.role});
  }
  for (const std::size_t i : moving) {
    arguments.push_back(function.arguments[i].like);
    inputs.push_back({"d" + function.arguments[i].name, Role::tangent});
  }
  if (backward) {
    // Only the types are asked for: a loss, say, and what it returns beside it, which gets no
    // cotangent.
    const NamedValue& result = function.results.front();
    arguments.push_back(function.f(arguments).front());
    inputs.push_back({(forward ? "d" + result.name : result.name) + " bar", Role::cotangent});
  }
  const TracedParameters parameters(arguments);
  const Tensors& x = parameters.tensors();
  const std::size_t own = function.arguments.size();

  // The function of its own arguments, with some of them replaced.
  const auto at = [&](const std::vector<std::size_t>& places, const Tensors& values, Tensors all) {
    for (std::size_t k = 0; k < places.size(); ++k) all[places[k]] = values[k];
    return all;
  };
  const auto select = [&](const std::vector<std::size_t>& places, const Tensors& from) {
    Tensors some;
    for (const std::size_t place : places) some.push_back(from[place]);
    return some;
  };
  const Tensors all(x.begin(), x.begin() + static_cast<std::ptrdiff_t>(own));
  const Tensors directions(x.begin() + static_cast<std::ptrdiff_t>(own),
                           x.begin() + static_cast<std::ptrdiff_t>(own + moving.size()));
  const auto pushed = [&](const Tensors& from) {
    const auto f = [&](const Tensors& some) { return function.f(at(moving, some, from)); };
    return jvp(f, std::tuple(select(moving, from)), std::tuple(directions));
  };

  Tensors outputs;
  std::vector<NamedValue>& results = traced.labels.outputs;
  const auto keep = [&](const Tensors& values, const std::vector<NamedValue>& names) {
    outputs.insert(outputs.end(), values.begin(), values.end());
    results.insert(results.end(), names.begin(), names.end());
  };
  std::vector<NamedValue> changes;
  for (const NamedValue& result : function.results)
    changes.push_back({"d" + result.name, Role::tangent});

  if (transform == GraphTransform::none) keep(function.f(all), function.results);
  if (transform == GraphTransform::jvp) {
    const auto [values, tangents] = pushed(all);
    keep(values, function.results), keep(tangents, changes);
  }
  if (backward) {
    const auto f = [&](const Tensors& some) {
      const Tensors from = at(learning, some, all);
      if (!forward) return function.f(from);
      auto [values, tangents] = pushed(from);
      values.insert(values.end(), tangents.begin(), tangents.end());
      return values;
    };
    const auto [values, pull] = vjp(f, select(learning, all));
    Tensors cotangents(values.size());
    cotangents[forward ? function.results.size() : 0] = x.back();
    const auto [gradient] = pull(cotangents);
    std::vector<NamedValue> names;
    for (const std::size_t i : learning)
      names.push_back({function.arguments[i].name + " bar", Role::cotangent});
    std::vector<NamedValue> both = function.results;
    if (forward) both.insert(both.end(), changes.begin(), changes.end());
    keep(values, both), keep(gradient, names);
  }

  plan::Canonical canonical = plan::canonicalise(x, outputs);
  traced.graph = std::move(canonical.graph);
  traced.labels.scalars = std::move(canonical.scalars);
  traced.tensors = std::move(canonical.inputs);
  return traced;
}

StoredGraph stored(const TracedFunction& traced, const std::string& name) {
  const auto values = [](const std::vector<show::NamedValue>& named) {
    std::vector<StoredValue> result;
    for (const show::NamedValue& value : named)
      result.push_back({value.name, to_string(value.role)});
    return result;
  };
  return store(name, values(traced.labels.inputs), values(traced.labels.outputs),
               {traced.graph, traced.tensors, traced.labels.scalars});
}

TracedFunction read_back(const StoredGraph& stored) {
  const auto named = [](const std::vector<StoredValue>& values) {
    std::vector<show::NamedValue> result;
    for (const StoredValue& value : values) {
      show::NamedValue& made = result.emplace_back(show::NamedValue{printable(value.name)});
      for (int role = 0; role < show::role_count; ++role)
        if (to_string(static_cast<show::Role>(role)) == value.role)
          made.role = static_cast<show::Role>(role);
    }
    return result;
  };
  TracedFunction traced;
  traced.graph = stored.graph;
  traced.labels.title = stored.name;
  traced.labels.inputs = named(stored.inputs);
  for (std::size_t i = 0; i < stored.constants.size(); ++i)
    traced.labels.inputs.push_back({"constant " + std::to_string(i)});
  traced.labels.outputs = named(stored.outputs);
  traced.labels.scalars = stored.scalars;
  return traced;
}

}  // namespace fluxion::cli
