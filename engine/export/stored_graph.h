// A function to keep: its simplified graph with the fused ops whole, the values that it captured,
// and its signature. What one machine prefers - kernels, offsets, expansions - is not in it, so
// every device plans it for itself (docs/graph-files.md states the bytes).
//
//   save_graph("f.graph", store("f", {{"x", "primal"}}, {{"y", "primal"}}, {x}, {f(x)}));
//   const StoredGraph f = load_graph("f.graph");
//   const std::vector<Tensor> y = call(f, {x}, device);   // lazy: evaluate, compile, differentiate
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
  std::vector<StoredValue> inputs;   // of the first of graph.inputs; the others are constants
  std::vector<StoredValue> outputs;  // one for each of graph.outputs
  std::vector<std::vector<std::byte>> constants;  // their elements, row-major, little-endian
  std::vector<double> scalars;                    // one for each of graph.scalars
  bool operator==(const StoredGraph&) const = default;
};

// The graph behind `outputs` as a function of `parameters`, which are leaves of a trace
// (TracedParameters). Evaluated tensors that it depends on are copied into it. Throws Error if
// numbers of names and values differ, and what plan::canonicalise throws.
StoredGraph store(std::string name, std::vector<StoredValue> inputs,
                  std::vector<StoredValue> outputs, std::span<const Tensor> parameters,
                  std::span<const Tensor> results);
// The same of a computation that was traced already; the inputs that have no name are constants.
StoredGraph store(std::string name, std::vector<StoredValue> inputs,
                  std::vector<StoredValue> outputs, const plan::Canonical& traced);

// The results for these arguments, as lazy tensors on their device. Throws Error, DTypeError or
// ShapeError, naming the argument, unless they are of the stored types; DeviceError if `device` is
// not theirs.
std::vector<Tensor> call(const StoredGraph& stored, std::span<const Tensor> arguments,
                         const Device& device, Location where = Location::current());

// Throws Error, naming what does not hold, unless every op has operands, attributes and types as
// its shape rule wants, every number can be held, and the signature fits the graph.
void check(const StoredGraph& stored);

// The bytes of a file, and back. Whatever parse_graph returns passes `check`; it throws FormatError
// for anything else, without using memory beyond a multiple of the number of bytes given.
std::vector<std::byte> serialise(const StoredGraph& stored);
StoredGraph parse_graph(std::span<const std::byte> bytes);

// As files: written to a temporary name, then renamed. Throw IoError, and FormatError with the
// path.
void save_graph(const std::filesystem::path& path, const StoredGraph& stored);
StoredGraph load_graph(const std::filesystem::path& path);

}  // namespace fluxion
