// The functions that `fluxion graph` knows by name, and what the transforms make of them.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "engine/device.h"
#include "engine/export/stored_graph.h"
#include "engine/plan/graph.h"
#include "engine/show/graph_picture.h"
#include "models/model_file.h"

namespace fluxion::cli {

// Sizes that a user may set; 0 leaves the function's own.
struct GraphSizes {
  std::int64_t batch = 0, width = 0, depth = 0, tokens = 0, heads = 0;
};

struct GraphArgument {
  std::string name;
  Tensor like;  // its type and device; the value does not matter
  bool parameter = false;
  show::Role role = show::Role::primal;
};

// A function with named arguments and results.
struct GraphFunction {
  std::string name;
  std::vector<GraphArgument> arguments;
  std::vector<show::NamedValue> results;
  std::function<std::vector<Tensor>(const std::vector<Tensor>&)> f;
};

struct GraphFunctionEntry {
  const char* name;
  const char* says;
  const char* sizes;  // the options that it heeds
  GraphFunction (*make)(const GraphSizes& sizes, const Device& device);
};
const std::vector<GraphFunctionEntry>& graph_functions();

// u(z, t, r) of a model file's network, its parameters as arguments.
GraphFunction model_function(const Model& model, const GraphSizes& sizes);

enum class GraphTransform { none, jvp, vjp, grad_of_jvp };

// The graph of the transformed function:
//   none         f
//   jvp          f and its tangents along the arguments `along`
//   vjp          f and its cotangents in the arguments `wrt`
//   grad-of-jvp  the tangents, and the gradient in `wrt` of their inner product with a given
//   cotangent
// Empty `along`: all floating arguments that are not parameters; empty `wrt`: the parameters, or
// those if there are none. Throws Error for a name that is no floating argument.
struct TracedFunction {
  plan::Graph graph;
  show::PictureLabels labels;
  std::vector<Tensor> tensors;  // behind the graph's inputs: the arguments, then what f captured
};
TracedFunction trace(const GraphFunction& function, GraphTransform transform,
                     const std::vector<std::string>& along, const std::vector<std::string>& wrt);

// The same as what a file keeps, and back.
StoredGraph stored(const TracedFunction& traced, const std::string& name);
TracedFunction read_back(const StoredGraph& stored);

}  // namespace fluxion::cli
