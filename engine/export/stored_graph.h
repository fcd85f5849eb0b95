// A function in a file: its simplified graph with the fused ops whole, the values that it captured,
// and its signature. Nothing in it depends on a machine (kernels, offsets, expansions), so every
// device plans it for itself. docs/graph-files.md states the bytes.
//
//   const std::vector<Tensor> from{x}, to{f(x)};
//   save_graph("f.graph", store("f", {{"x", "primal"}}, {{"y", "primal"}}, from, to));
//   const StoredGraph f = load_graph("f.graph");
//   const std::vector<Tensor> y = call(f, std::vector{x}, device);  // lazy, differentiable
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "engine/plan/graph.h"

namespace fluxion {

// An argument or a result of a stored function.
struct StoredValue {
  std::string name;
  std::string role = "primal";  // or "coefficient", "tangent", "cotangent": what pictures show
  bool operator==(const StoredValue&) const = default;
};

struct StoredGraph {
  std::string name;
  plan::Graph graph;
  std::vector<StoredValue>
      inputs;  // one for each of the first graph.inputs; the rest are constants
  std::vector<StoredValue> outputs;               // one for each of graph.outputs
  std::vector<std::vector<std::byte>> constants;  // row-major, little-endian elements
  std::vector<double> scalars;                    // one for each of graph.scalars
  // Of numbers the bits count: NaN equals itself.
  bool operator==(const StoredGraph& other) const;
};

// The graph of `results` as a function of `parameters`, which are leaves of a trace
// (TracedParameters). Evaluated tensors that it depends on are copied into it. Throws Error if the
// numbers of names and values differ, and what plan::canonicalise throws.
StoredGraph store(std::string name, std::vector<StoredValue> inputs,
                  std::vector<StoredValue> outputs, std::span<const Tensor> parameters,
                  std::span<const Tensor> results);
// The same for a computation that is already traced; inputs beyond the named ones are constants.
StoredGraph store(std::string name, std::vector<StoredValue> inputs,
                  std::vector<StoredValue> outputs, const plan::Canonical& traced);

// The results for these arguments, as lazy tensors on `device`. Throws DTypeError or ShapeError,
// which names the argument, if it does not have the stored type; DeviceError if it is on another
// device; Error if the number of arguments is wrong or one is empty.
std::vector<Tensor> call(const StoredGraph& stored, std::span<const Tensor> arguments,
                         const Device& device, Location where = Location::current());

// Throws Error, which says what is wrong, unless every op has operands, attributes and types that
// its shape rule accepts, every number fits its dtype, and the signature fits the graph.
void check(const StoredGraph& stored);

// Convert to the bytes of a file and back. A graph that parse_graph returns passes `check`; for
// other bytes it throws FormatError. It uses memory proportional to the number of bytes.
std::vector<std::byte> serialise(const StoredGraph& stored);
StoredGraph parse_graph(std::span<const std::byte> bytes);

// Write and read a file. It is written under a temporary name, then renamed. Throw IoError, and
// FormatError with the path.
void save_graph(const std::filesystem::path& path, const StoredGraph& stored);
StoredGraph load_graph(const std::filesystem::path& path);

}  // namespace fluxion
