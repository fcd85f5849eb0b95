// A graph (engine/plan/graph.h) as a diagram: the nodes, what each depends on, and its role in the
// derivative.
#pragma once

#include <string>
#include <vector>

#include "engine/plan/graph.h"
#include "engine/show/diagram.h"

namespace fluxion::show {

// The name and role of an input or output. The engine knows no derivatives, so the caller who
// traced the graph names these; the roles of other nodes follow from the edges.
struct NamedValue {
  std::string name;
  Role role = Role::primal;
};

// The name of that index, or `what` with the index where there is none.
std::string name_of(const std::vector<NamedValue>& names, std::size_t index, const char* what);

// The layer that a parameter belongs to: "attn.qkv" of attn.qkv.weight, "" of a name without a dot.
std::string layer_of(const std::string& name);

// Labels of a picture. Without a name, an input is called "input 3", an output "output 0".
struct PictureLabels {
  std::string title;
  std::vector<NamedValue> inputs, outputs;
  std::vector<double> scalars;  // values of the run-time scalars
};

// The role of every node. A node that is an output has the role of that output, so an output can
// end a tangent, as MeanFlow's target does. A constant has the role of its first user.
std::vector<Role> roles(const plan::Graph& graph, const PictureLabels& labels);

Kind kind_of(OpClass op_class);

// A box for every node, named %i as in to_string(graph), and for every output. A constant has a box
// beside each of its users.
Diagram graph_diagram(const plan::Graph& graph, const PictureLabels& labels = {});

}  // namespace fluxion::show
