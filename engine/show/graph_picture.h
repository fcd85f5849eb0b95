// A graph (engine/plan/graph.h) as a diagram: what depends on what, and which part of a derivative
// each node is.
#pragma once

#include <string>
#include <vector>

#include "engine/plan/graph.h"
#include "engine/show/diagram.h"

namespace fluxion::show {

// The engine knows no derivatives: whoever traced the graph says which inputs and outputs are
// which, and the rest follows from what depends on what.
struct NamedValue {
  std::string name;
  Role role = Role::primal;
};

// What a picture says beside the graph. Inputs without a name are called "input 3", outputs "output
// 0".
struct PictureLabels {
  std::string title;
  std::vector<NamedValue> inputs, outputs;
  std::vector<double> scalars;  // values of the run-time scalars
};

// The role of every node. A node that an output names has the role of that output, so an output can
// end a tangent, as MeanFlow's target does. Constants go with their users.
std::vector<Role> roles(const plan::Graph& graph, const PictureLabels& labels);

Kind kind_of(OpClass op_class);

// A box for every node, named %i as in to_string(graph), and one for every output. A constant has a
// box beside each of its users.
Diagram graph_diagram(const plan::Graph& graph, const PictureLabels& labels = {});

}  // namespace fluxion::show
